#!/bin/sh
# Tries the unit and the init script under a systemd of their own: it is process 1 of a fresh Debian in a chroot (chroot.sh).
#
#   tests/systemd.sh            Debian 12, with the release build
#   tests/systemd.sh trixie
#   BINARY=... tests/systemd.sh
set -eu
cd "$(dirname "$0")/.."
: "${CHROOTS:=$PWD/target/chroots/systemd}"
. tests/lib.sh
. tests/chroot.sh

# What process 1 runs, and then ends.
write_checks() {
    cat >"$root/root/checks.sh" <<'CHECKS'
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
shows() { systemctl show -p "$1" --value pyreplica; }
# is WHAT COMMAND...: waits for it, for half a minute.
is() {
    what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        if [ $tries -gt 150 ]; then
            echo "not so: $what"
            systemctl status --no-pager pyreplica
            systemctl exit 1
            exit 1
        fi
        sleep 0.2
    done
    echo "ok: $what"
}
state() { [ "$(shows ActiveState)" = "$1" ]; }
pid_is_other() { [ "$(shows MainPID)" != "$pid" ] && [ "$(shows MainPID)" != 0 ]; }
status_is() { [ "$(shows StatusText)" = "$1" ]; }
has_read_again() { journalctl -u pyreplica | grep -q 'Reading the config files again'; }

adduser --quiet --system --group --home /var/lib/pyreplica pyreplica
install -d -m 750 -g pyreplica /etc/pyreplica
is "without a config file it does not start, and says so" sh -c '! systemctl start pyreplica'
for name in one two; do
    printf '[MAIN]\nNAME=%s\nDSN0=host=localhost port=9 user=me dbname=%s\nDSN1=host=127.0.0.1 port=9 user=me dbname=slave_of_%s\n' $name $name $name >/etc/pyreplica/$name.conf
done
is "it starts" systemctl start pyreplica
is "it runs as its user" sh -c '[ "$(stat -c %U /proc/$(systemctl show -p MainPID --value pyreplica))" = pyreplica ]'
is "systemd knows which pairs fail" status_is '0 replicating, 2 failing (one, two)'
pid=$(shows MainPID)
rm /etc/pyreplica/two.conf
is "it reloads" systemctl reload pyreplica
is "it has read the config files again" has_read_again
is "the pair that is gone is not counted" status_is '0 replicating, 1 failing (one)'
is "it is the same process" [ "$(shows MainPID)" = "$pid" ]
kill -9 "$pid"
is "a daemon that was killed is started again" pid_is_other
is "and is active" state active
is "the init script stops the unit" /etc/init.d/pyreplica stop
is "it is not active" state inactive
is "the init script starts the unit" /etc/init.d/pyreplica start
is "it is active" state active
echo nonsense >/etc/pyreplica/one.conf
is "a wrong config file keeps it from starting" sh -c '! systemctl restart pyreplica'
sleep 6
is "it is not tried again" [ "$(shows ActiveState) $(shows NRestarts) $(shows ExecMainStatus)" = 'failed 0 3' ]
printf '[MAIN]\nNAME=one\nDSN0=host=localhost port=9 user=me\nDSN1=host=127.0.0.1 port=9 user=me\n' >/etc/pyreplica/one.conf

rm /etc/systemd/system/pyreplica.service
update-rc.d pyreplica defaults
systemctl daemon-reload
systemctl reset-failed pyreplica
is "with the init script alone it starts" systemctl start pyreplica
is "systemd knows the process" sh -c '[ "$(systemctl show -p MainPID --value pyreplica)" = "$(cat /run/pyreplica.pid)" ]'
kill -9 "$(cat /run/pyreplica.pid)"
is "a daemon that was killed is not called active" state failed
is "it starts again" systemctl start pyreplica
is "it is active again" state active
echo "all is well"
systemctl exit 0
CHECKS
    chmod 755 "$root/root/checks.sh"
    cat >"$root/etc/systemd/system/checks.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/root/checks.sh
StandardOutput=file:/root/said
StandardError=inherit
UNIT
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../checks.service "$root/etc/systemd/system/multi-user.target.wants/"
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
}

# With namespaces and a control group of its own. All of it ends with process 1.
boot() {
    group=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/pyreplica-test-$$
    mkdir "$group"
    # systemd leaves empty groups in it.
    trap 'find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
    # shellcheck disable=SC2016
    timeout -s KILL 300 sh -ec '
        echo $$ >"$2/cgroup.procs"
        exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -ec '\''
            ip link set lo up 2>/dev/null || true
            mount --bind "$1" "$1"
            mount -t proc proc "$1/proc"
            mount -t sysfs sysfs "$1/sys"
            mount -t tmpfs tmpfs "$1/run"
            mount -t tmpfs tmpfs "$1/tmp"
            mount --rbind /dev "$1/dev"
            mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
            exec chroot "$1" env -i container=chroot /sbin/init --show-status=no
        '\'' boot "$1"
    ' boot "$root" "$group" </dev/null >"$root.log" 2>&1 || true
}

need_debootstrap
if [ -z "${BINARY:-}" ]; then
    need_rust
    build --release --locked
    BINARY=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/release/pyreplica
fi
# lsb functions and update-rc.d, which Debian 13 may do without.
make_chroot "${1:-bookworm}" systemd systemd-sysv adduser init-system-helpers sysvinit-utils
cp "$BINARY" "$root/usr/local/bin/pyreplica"
cp pyreplica.service "$root/etc/systemd/system/"
install -D pyreplica.sh "$root/etc/init.d/pyreplica"
write_checks
echo "== systemd, with the unit and the init script"
boot
cat "$root/root/said" || tail -n 20 "$root.log" >&2
grep -q '^all is well$' "$root/root/said"
rm -rf "$root" "$root.log"
