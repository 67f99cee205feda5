#!/bin/sh
# Builds the Debian package, and installs, upgrades, removes and purges it in a fresh Debian (chroot.sh says where from).
#
#   tests/package.sh            Debian 13
#   tests/package.sh bookworm
#
# It builds what is committed, in a clone, and leaves the package in target/package.
set -eu
cd "$(dirname "$0")/.."
: "${CHROOTS:=$PWD/target/chroots/package}"
. tests/lib.sh
. tests/chroot.sh

place=$PWD/target/package
# The crates are compiled once.
: "${CARGO_TARGET_DIR:=$PWD/target}"
export CARGO_TARGET_DIR

say() { printf '== %s\n' "$*"; }

# The build's long output is shown if it fails.
quietly() {
    if ! "$@" >"$place/log" 2>&1; then
        tail -n 30 "$place/log" >&2
        return 1
    fi
}

# Rust may come from elsewhere than the distribution, so what Build-Depends says is not insisted on.
build_package() {
    say "building the package $1"
    (cd "$place/pyreplica" && quietly dpkg-buildpackage -d -b -us -uc)
    cp "$place/pyreplica_$1_amd64.deb" "$root/root/"
}

# is WHAT COMMAND...: in the chroot.
is() {
    what=$1
    shift
    if ! in_chroot "$@"; then
        echo "not so: $what" >&2
        exit 1
    fi
    echo "ok: $what"
}

need_debootstrap
need_rust
command -v dh >/dev/null || need_packages debhelper
make_chroot "${1:-trixie}" man-db bash-completion
rm -rf "$place"
mkdir -p "$place"
PYREPLICA_COMMIT=$(git rev-parse --short=12 HEAD)
export PYREPLICA_COMMIT
git clone --quiet --no-local --depth 1 "file://$PWD" "$place/pyreplica"
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
build_package "$version"
! command -v lintian >/dev/null || lintian --allow-root --fail-on error "$place/pyreplica_${version}_amd64.deb"

say "installing it"
is "apt installs it" apt-get -qq -y install "./root/pyreplica_${version}_amd64.deb"
is "the program runs" sh -c 'pyreplica --version | grep "(commit "'
is "it has the manual" sh -c 'man pyreplica | grep -q switchover && man 5 pyreplica.conf | grep -q RETENTION'
is "bash completes" bash -c '. /usr/share/bash-completion/completions/pyreplica && complete -p pyreplica'
is "only the daemon's user may read config files" sh -c '[ "$(stat -c %a:%U:%G /etc/pyreplica)" = 750:root:pyreplica ]'
is "nothing is enabled yet" sh -c '! ls /etc/rc2.d/S*pyreplica /etc/systemd/system/*/pyreplica.service 2>/dev/null'
is "the unit, the init script, the rotation and the sample are there" sh -c '
    [ -e /lib/systemd/system/pyreplica.service ] && [ -x /etc/init.d/pyreplica ] && [ -e /etc/logrotate.d/pyreplica ] &&
    [ -e /usr/share/doc/pyreplica/examples/sample.conf ]'

say "a config file, and the daemon by the init script"
in_chroot sh -c 'pyreplica sample | sed "s/^DSN\(.\)=.*/DSN\1=host=127.0.0.1 port=9 user=me dbname=d\1/" >/etc/pyreplica/shop.conf
    chown root:pyreplica /etc/pyreplica/shop.conf; chmod 640 /etc/pyreplica/shop.conf'
is "it starts, is there, reads its files again, and stops" sh -ec '
    /etc/init.d/pyreplica start; /etc/init.d/pyreplica status; /etc/init.d/pyreplica reload
    until grep -q "Reading the config files again" /var/log/pyreplica.log; do sleep 0.1; done
    /etc/init.d/pyreplica stop; grep -q "Stopping" /var/log/pyreplica.log'
is "its log is rotated" sh -ec 'apt-get -qq -y install logrotate >/dev/null 2>&1; logrotate -f /etc/logrotate.d/pyreplica
    [ -s /var/log/pyreplica.log.1 ] && [ "$(stat -c %U:%a /var/log/pyreplica.log)" = pyreplica:640 ]'

say "upgrading it"
sed -i "1s/($version)/($version+1)/" "$place/pyreplica/debian/changelog"
build_package "$version+1"
in_chroot sh -c 'echo "# mine" >>/etc/logrotate.d/pyreplica; chmod 700 /etc/pyreplica/shop.conf'
is "apt upgrades it" apt-get -qq -y install "./root/pyreplica_$version+1_amd64.deb"
is "what was changed is kept" sh -c 'grep -q "# mine" /etc/logrotate.d/pyreplica && [ "$(stat -c %a /etc/pyreplica/shop.conf)" = 700 ]'

say "removing and purging it"
is "apt removes it" apt-get -qq -y remove pyreplica
is "config files and log stay, the program does not" sh -c '
    [ -e /etc/pyreplica/shop.conf ] && [ -e /var/log/pyreplica.log ] && [ -e /etc/init.d/pyreplica ] && ! command -v pyreplica'
is "apt purges it" apt-get -qq -y purge pyreplica
is "only the config file is left, which somebody wrote" sh -c '
    [ -e /etc/pyreplica/shop.conf ] && [ -z "$(find /etc /var/log /usr /lib /run -name "*pyreplica*" ! -path "/etc/pyreplica*")" ]'
in_chroot rm /etc/pyreplica/shop.conf
is "without that nothing is left" sh -ec "apt-get -qq -y install ./root/pyreplica_${version}_amd64.deb; apt-get -qq -y purge pyreplica
    [ ! -e /etc/pyreplica ] && [ ! -e /var/lib/pyreplica ]"
rm -rf "$root" "$root.log"
say "the package is $place/pyreplica_${version}_amd64.deb"
