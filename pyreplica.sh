#!/bin/sh
### BEGIN INIT INFO
# Provides:          pyreplica
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      $named $time postgresql
# Should-Stop:       $named postgresql
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: PostgreSQL master-slave replication
# Description:       Replicates one pair of databases for each *.conf file in
#                    /etc/pyreplica, all of them in one process.
### END INIT INFO
# The next line is for systemd, which then knows whether the process lives.
# pidfile: /run/pyreplica.pid

# Copy it to /etc/init.d/pyreplica. It needs the binary, the user and at least
# one config file. /etc/default/pyreplica may set the variables below, which are
# in capitals, to other values.
#
# With systemd, copy pyreplica.service to /etc/systemd/system too: this script
# then asks systemd to start and stop that.

set -e

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DAEMON=$(command -v pyreplica || echo /usr/local/bin/pyreplica)
CONFIG=/etc/pyreplica
RUN_AS=pyreplica
LOG=/var/log/pyreplica.log
PIDFILE=/run/pyreplica.pid

if [ -r /etc/default/pyreplica ]; then
    . /etc/default/pyreplica
fi

# Where systemd runs, this calls systemctl and ends here.
if [ -r /lib/lsb/init-functions ]; then
    . /lib/lsb/init-functions
fi

say() {
    echo "pyreplica: $*"
}

# die CODE MESSAGE...: the codes are those that LSB defines for init scripts.
die() {
    code=$1
    shift
    say "$*" >&2
    exit "$code"
}

# start-stop-daemon for the process that this script has started and no other.
# It matches the name, not the path: an upgrade replaces the file of a running
# daemon.
ours() {
    start-stop-daemon --quiet --pidfile "$PIDFILE" --name "$(basename "$DAEMON")" "$@"
}

# 0 running, 1 dead though its PID file is there, 3 not running, 4 unknown.
status() {
    state=0
    ours --status || state=$?
    if [ $state -eq 0 ] && is_zombie; then
        state=1
    fi
    return $state
}

# A process has ended and its parent has not collected it. In a container there
# may be nobody to do that.
is_zombie() {
    grep -qs '^State:[[:space:]]*Z' "/proc/$(cat "$PIDFILE")/status"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die 4 "only root can do that"
}

need_installation() {
    [ -x "$DAEMON" ] || die 5 "$DAEMON is not there"
    id "$RUN_AS" >/dev/null 2>&1 ||
        die 6 "there is no user $RUN_AS: adduser --system --group --home /var/lib/pyreplica $RUN_AS"
    [ -e "$CONFIG" ] || die 6 "$CONFIG is not there: copy sample.conf to $CONFIG/NAME.conf and fill it in"
}

# The daemon does not run as root and so cannot create a file in /var/log.
prepare_log() {
    [ -e "$LOG" ] || install -m 640 -o "$RUN_AS" -g "$(id -gn "$RUN_AS")" /dev/null "$LOG"
}

start() {
    need_root
    if status; then
        say "already running"
        return 0
    fi
    need_installation
    prepare_log
    # The daemon has to read its own user's ~/.pgpass, not root's.
    HOME=$(getent passwd "$RUN_AS" | cut -d: -f6)
    export HOME
    start-stop-daemon --start --quiet --background --make-pidfile --pidfile "$PIDFILE" \
        --chuid "$RUN_AS:$(id -gn "$RUN_AS")" --umask 027 --exec "$DAEMON" -- --log "$LOG" "$CONFIG"
    # If the daemon cannot use its config files, it ends within a moment, and only its log says why.
    sleep 1
    if status; then
        say "started"
        return 0
    fi
    rm -f "$PIDFILE"
    tail -n 4 "$LOG" >&2
    die 1 "did not start; the lines above are the last of $LOG"
}

# After the first TERM the daemon completes the batch in progress, which takes about two seconds at most.
stop() {
    need_root
    if ! status; then
        say "not running"
        rm -f "$PIDFILE"
        return 0
    fi
    ours --stop --retry=TERM/10/KILL/5 || die 1 "did not stop"
    rm -f "$PIDFILE"
    say "stopped"
}

# Makes the daemon open its log file again, as after a rotation, and read its config files again.
reload() {
    need_root
    status || die 7 "not running"
    prepare_log
    ours --stop --signal HUP
    say "log file reopened, config files read again"
}

case "${1:-}" in
    start)
        start
        ;;
    stop)
        stop
        ;;
    restart | force-reload)
        stop
        start
        ;;
    reload)
        reload
        ;;
    status)
        state=0
        status || state=$?
        case $state in
            0) say "running, process $(cat "$PIDFILE")" ;;
            1) say "not running, but $PIDFILE is there" ;;
            3) say "not running" ;;
            *) say "cannot tell whether it is running" ;;
        esac
        exit $state
        ;;
    *)
        echo "usage: $0 {start|stop|restart|reload|force-reload|status}" >&2
        exit 2
        ;;
esac
