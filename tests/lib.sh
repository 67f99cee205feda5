# Shell functions that run.sh and demo.sh share: PostgreSQL from the distribution, and clusters that clean up.
# Source it from the repository's root; it needs nothing but a POSIX shell.

# Is Rust there, and new enough for Cargo.toml's rust-version? Asked before anything is installed or built.
need_rust() {
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$oldest" "${found:-0}" | sort -V | head -n 1)" != "$oldest" ] || return 0
    echo "pyreplica needs Rust $oldest or newer, and finds ${found:-none}." >&2
    echo "As root on Debian 13: apt-get install cargo. On Debian 12: apt-get install cargo-web. Elsewhere: https://rustup.rs" >&2
    return 1
}

# build ARGUMENT...: cargo build, which says what it does: the first time it takes minutes.
build() {
    echo "== building pyreplica (cargo build $*): some 130 crates, a few minutes the first time, on two cores perhaps five"
    # Cargo's own progress line where somebody looks; elsewhere it would be a line for each crate.
    if [ -t 2 ]; then
        cargo build "$@"
    else
        cargo build --quiet "$@"
    fi
}

# Prints the directory of the server's programs: PG_BIN if set, else the newest that is installed.
find_server() {
    for directory in ${PG_BIN:+"$PG_BIN"} $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr) \
        "$(pg_config --bindir 2>/dev/null)"; do
        if [ -x "$directory/initdb" ] && [ -x "$directory/pg_ctl" ]; then
            echo "$directory"
            return 0
        fi
    done
    return 1
}

# Prints the directory of the client programs, psql and the like: beside the server if they are there (servers for tests
# come without), else the newest that is installed.
find_clients() {
    for directory in ${PG_BIN:+"$PG_BIN"} $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr) \
        "$(pg_config --bindir 2>/dev/null)" "$(dirname "$(command -v psql)")"; do
        if [ -x "$directory/psql" ]; then
            echo "$directory"
            return 0
        fi
    done
    return 1
}

# need_packages PACKAGE...: installs what is missing from the distribution.
need_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: $*" >&2
        return 1
    fi
    echo "installing from the distribution: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt_log=$(mktemp)
    if ! { apt-get -qq update && apt-get -qq -y --no-install-recommends install "$@"; } >"$apt_log" 2>&1; then
        tail -n 20 "$apt_log" >&2
        rm -f "$apt_log"
        return 1
    fi
    rm -f "$apt_log"
}

# Installs PostgreSQL from the distribution when there is none, and sets PG_BIN and PG_CLIENTS. With PG_BIN set that
# server is taken for both clusters, or for the master alone when PG_BIN_SLAVE is set too.
need_server() {
    if ! { find_server && find_clients; } >/dev/null; then
        need_packages postgresql || {
            echo "install PostgreSQL, or set PG_BIN to the directory of initdb and pg_ctl" >&2
            return 1
        }
    fi
    PG_BIN=$(find_server) && PG_CLIENTS=$(find_clients) || return 1
    export PG_BIN
}

# Installs PL/Python beside the distribution's server; without it the tests of filters in Python are skipped.
need_python() {
    version=$(expr "$PG_BIN" : '/usr/lib/postgresql/\([0-9]*\)/bin') || return 0
    [ -e "/usr/share/postgresql/$version/extension/plpython3u.control" ] || need_packages "postgresql-plpython3-$version" ||
        echo "filters in Python are not tested"
}

# A connection pooler; without it the tests of poolers are skipped.
need_pooler() {
    command -v pgbouncer >/dev/null || need_packages pgbouncer || echo "poolers are not tested"
}

# The tests of TLS make their own certificates.
need_openssl() {
    command -v openssl >/dev/null || need_packages openssl
}

# Installs what the tests of mails need when it is missing: a mail server.
need_mail_server() {
    { /usr/bin/python3 -c "import aiosmtpd" || python3 -c "import aiosmtpd"; } >/dev/null 2>&1 ||
        need_packages python3-aiosmtpd
}

# promtool, out of the distribution's Prometheus and without that; without it the rules of monitoring/ are tested less. Sets PROMTOOL.
need_promtool() {
    PROMTOOL=$(command -v promtool || echo "$PWD/target/promtool")
    if [ ! -x "$PROMTOOL" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "fetching promtool from the distribution"
        mkdir -p target
        fetched=$(mktemp -d)
        # Debian 13 has a package for it, Debian 12 has it in that of the server.
        if (
            cd "$fetched" && apt-get -qq update && { apt-get -qq download promtool || apt-get -qq download prometheus; } &&
                dpkg-deb --extract ./*.deb .
        ) >"$fetched/log" 2>&1 && [ -f "$fetched/usr/bin/promtool" ]; then
            cp "$fetched/usr/bin/promtool" "$PROMTOOL"
        fi
        rm -rf "$fetched"
    fi
    if [ -x "$PROMTOOL" ]; then export PROMTOOL; else unset PROMTOOL; echo "promtool does not check the rules"; fi
}

# Prints where the tests' clusters go: into memory where there is plenty. A server that is killed loses nothing there, and
# copying a database, which every test does twice, takes a third of the time.
cluster_home() {
    room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
    memory=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null)
    if [ -w /dev/shm ] && [ "${room:-0}" -gt 4000000 ] && [ "${memory:-0}" -gt 6000000 ]; then
        echo /dev/shm
    else
        echo /tmp
    fi
}

# Ends a demo with the last words of its daemon, process $daemon, when it is not there any more.
need_daemon() {
    kill -0 "$daemon" 2>/dev/null && return
    echo "pyreplica has ended; the end of its log:" >&2
    tail -n 20 "$rundir/pyreplica.log" >&2
    exit 1
}

# start_clusters RUNDIR [CONF]: a throwaway master and slave cluster, run by an unprivileged user, with CONF as further
# lines of postgresql.conf. They live as long as this shell holds descriptors 8 and 9 open, so whatever it starts must
# run with `8>&- 9>&-`. Sets master and slave to "DIR PORT".
start_clusters() {
    start_cluster master "$1" "${2:-}"
    exec 8>"$1/master.in"
    start_cluster slave "$1" "${2:-}"
    exec 9>"$1/slave.in"
    master=$(await_cluster master "$1") && slave=$(await_cluster slave "$1")
}

# Closes the clusters' inputs and waits until they are gone.
stop_clusters() {
    exec 8>&- 9>&-
    wait
}

start_cluster() {
    mkfifo "$2/$1.in"
    (
        exec <"$2/$1.in" >"$2/$1.out" 8>&- 9>&-
        bin=$PG_BIN
        [ "$1" != slave ] || bin=${PG_BIN_SLAVE:-$PG_BIN}
        set -- sh -c "$(cat tests/harness/cluster.sh)" cluster "$bin" "$1" "$3"
        [ "$(id -u)" != 0 ] || set -- runuser -u postgres -- "$@"
        exec "$@"
    ) &
    echo $! >"$2/$1.pid"
}

await_cluster() {
    tries=0
    until grep -q '^ready ' "$2/$1.out"; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || ! kill -0 "$(cat "$2/$1.pid")" 2>/dev/null; then
            echo "the $1 cluster does not start" >&2
            return 1
        fi
        sleep 0.1
    done
    sed -n 's/^ready //p' "$2/$1.out"
}
