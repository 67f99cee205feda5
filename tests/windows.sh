#!/bin/sh
# Type-checks the code that only Windows compiles, on any machine that has the Rust target x86_64-pc-windows-gnu; on
# others as well as it goes without Windows's standard library: a copy of the sources in which cfg(windows) holds and
# cfg(unix) does not. Whatever uses std::os::unix outside of cfg(unix) is found by tests/house.rs instead.
set -eu
cd "$(dirname "$0")/.."

if rustc --print sysroot --target x86_64-pc-windows-gnu >/dev/null 2>&1 &&
    [ -d "$(rustc --print sysroot)/lib/rustlib/x86_64-pc-windows-gnu/lib" ]; then
    exec cargo check --target x86_64-pc-windows-gnu
fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R Cargo.toml Cargo.lock CHANGELOG.md build.rs sample.conf src sql "$copy"
sed -i -e 's/^\[target\..cfg(windows).\.dependencies\]$/[target."cfg(all())".dependencies]/' \
    -e 's/^\[target\..cfg(unix).\.dependencies\]$/[target."cfg(any())".dependencies]/' "$copy/Cargo.toml"
find "$copy/src" -name '*.rs' -exec sed -i -e 's/cfg!(windows)/true/g' -e 's/cfg(windows)/cfg(all())/g' \
    -e 's/cfg(unix)/cfg(any())/g' -e 's/cfg(all(test, unix))/cfg(any())/g' {} +
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/windows-check cargo check --quiet --manifest-path "$copy/Cargo.toml"
echo "what only Windows compiles passes the type check (with this machine's standard library)"
