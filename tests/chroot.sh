# Shell functions that fresh.sh and package.sh share: a minimal Debian in a directory, and commands in it.
# Source it from the repository's root, as root. It needs debootstrap and unshare.
#
# MIRROR is where Debian comes from. CHROOTS is the directory that holds the chroots (default target/chroots).
# HOST_FILES are files and directories of this machine that a chroot needs to reach the registries of Debian and Rust.

: "${CHROOTS:=$PWD/target/chroots}"
: "${MIRROR:=http://deb.debian.org/debian}"
: "${HOST_FILES:=/etc/resolv.conf /etc/hosts /usr/local/share/ca-certificates $HOME/.cargo/config.toml $(
    grep -lis '^ *acquire::' /etc/apt/apt.conf /etc/apt/apt.conf.d/* || true)}"

need_debootstrap() {
    if [ "$(id -u)" != 0 ]; then
        echo "only root can make a chroot" >&2
        return 1
    fi
    command -v debootstrap >/dev/null || need_packages debootstrap
}

# make_chroot SUITE [PACKAGE...]: a new one in CHROOTS, in the place of an old one; with the suite's security updates, as on
# every Debian. Sets root.
make_chroot() {
    suite=$1
    root=$CHROOTS/$suite
    shift
    # No mount of an earlier run is left in it: they end with their processes.
    rm -rf "$root"
    mkdir -p "$root"
    echo "== Debian $suite, as small as debootstrap makes it =="
    if ! debootstrap --variant=minbase --include="$(echo "ca-certificates $*" | tr ' ' ,)" "$suite" "$root" "$MIRROR" \
        >"$root.log" 2>&1; then
        tail -n 20 "$root.log" >&2
        return 1
    fi
    for file in $HOST_FILES; do
        [ ! -e "$file" ] || cp -aL --parents "$file" "$root"
    done
    cat >"$root/etc/apt/sources.list" <<SOURCES
deb $MIRROR $suite main
deb $MIRROR $suite-updates main
deb $MIRROR-security $suite-security main
SOURCES
    # A chroot shares the machine's ports, so no service starts in it.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    in_chroot sh -ec 'update-ca-certificates >/dev/null 2>&1; apt-get -qq update'
}

# Runs a command in $root, with processes and mounts of its own. Both end with the command, and so does what it left running.
in_chroot() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -ec '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t sysfs -o ro sysfs "$root/sys"
        exec chroot "$root" env -i HOME=/root TERM="${TERM:-dumb}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} "$@"
    ' in_chroot "$root" "$@"
}

# Copies what is committed into $root/root/pyreplica, as `git clone` does.
clone_into_chroot() {
    git clone --quiet --no-local --depth 1 "file://$PWD" "$root/root/pyreplica"
}
