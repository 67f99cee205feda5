#!/bin/sh
# Compiles the program and its tests with the oldest Rust that Cargo.toml declares, which is what Debian 13 has.
#
# Takes the compiler that RUSTC names, or the one in the path, if it is that version. Elsewhere, on Debian, it unpacks the
# distribution's package into target/oldest-rust and installs nothing. Where the version cannot be had, says so and succeeds.
set -eu
cd "$(dirname "$0")/.."

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
place=$PWD/target/oldest-rust

# Is this compiler the oldest version?
is_oldest() {
    case $("$1" --version 2>/dev/null) in
        "rustc $oldest."*) ;;
        *) return 1 ;;
    esac
}

# The package's version in the distribution that begins with the oldest one; empty if there is none.
packaged() {
    apt-cache madison "$1" 2>/dev/null | awk -F ' *[|] *' -v wanted="$oldest." 'index($2, wanted) == 1 { print $2; exit }'
}

# Unpacks Debian's compiler, its standard library and the LLVM that it is linked to.
unpack() {
    for suffix in "" -web; do
        version=$(packaged "rustc$suffix")
        [ -z "$version" ] || break
    done
    [ -n "$version" ] || return 1
    mkdir -p "$place"
    (
        cd "$place"
        llvm=$(apt-cache depends "libstd-rust$suffix-$oldest=$version" "rustc$suffix=$version" |
            sed -n 's/.*Depends: \(libllvm[0-9a-z]*\)$/\1/p' | head -n 1)
        apt-get -qq download "rustc$suffix=$version" "libstd-rust$suffix-$oldest=$version" "libstd-rust$suffix-dev=$version" \
            "${llvm:-libllvm19}"
        for package in ./*.deb; do
            dpkg -x "$package" .
            rm "$package"
        done
    ) >&2
}

compiler=${RUSTC:-rustc}
if ! is_oldest "$compiler"; then
    compiler=$place/usr/bin/rustc
    LD_LIBRARY_PATH=$(echo "$place"/usr/lib/*-linux-gnu)
    export LD_LIBRARY_PATH
    if ! is_oldest "$compiler"; then
        command -v apt-cache >/dev/null || { echo "== skipped: Rust $oldest cannot be had here ==" >&2; exit 0; }
        [ "$(id -u)" != 0 ] || apt-get -qq update >/dev/null 2>&1 || true
        unpack || { echo "== skipped: Rust $oldest cannot be had here ==" >&2; exit 0; }
        LD_LIBRARY_PATH=$(echo "$place"/usr/lib/*-linux-gnu)
        is_oldest "$compiler" || { echo "$compiler does not run as Rust $oldest" >&2; exit 1; }
    fi
fi
echo "== Rust $oldest compiles it =="
# A directory of its own: two compilers in one would make each other's work anew.
RUSTC=$compiler CARGO_TARGET_DIR=$PWD/target/oldest cargo check --locked --all-targets "$@"
