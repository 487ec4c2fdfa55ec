#!/bin/sh
# Lifeboat @VERSION@: installs the mobility agent on this machine, joins it to its configuration server, starts it.
#
#   curl ... @URL@/install.sh | sudo sh -s -- --token TOKEN [--name NAME] [--disk DEVICE]...
#   curl ... @URL@/install.sh | sudo sh -s -- --uninstall
#
# The command that fetched this script pinned the server's public key; what the script fetches is pinned to the same key,
# and checked against the digest below. Safe to run again. Nothing runs before the last line has arrived.
set -eu

URL='@URL@'
PIN='@PIN@'
FINGERPRINT='@FINGERPRINT@'
DATA='@DATA@'
DIGEST='@DIGEST@'
ARCHITECTURE='@ARCHITECTURE@'

PROGRAM=/usr/local/bin/lifeboat
STATE=/var/lib/lifeboat-agent

# fail MESSAGE CAUSES ACTION
fail() {
    echo "error: $1" >&2
    echo "possible causes: $2" >&2
    echo "recommended action: $3" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 ||
        fail "$1 is missing" "this is a very small system" "install the package $2, then run this again"
}

check_machine() {
    [ "$(id -u)" = 0 ] ||
        fail "this needs root" "sudo was left out" "run it with: | sudo sh -s -- ..."
    [ "$(uname -s)" = Linux ] ||
        fail "this is $(uname -s), not Linux" "the agent runs on Linux" "run this on the machine that is to be protected"
    machine=$(uname -m)
    [ "$machine" = "$ARCHITECTURE" ] ||
        fail "this machine is $machine, the server's executable is for $ARCHITECTURE" \
            "the server hands out its own executable" \
            "build or copy lifeboat for $machine, then join by hand: lifeboat agent join --server $DATA --fingerprint $FINGERPRINT"
    kernel=$(uname -r)
    major=${kernel%%.*}
    rest=${kernel#*.}
    minor=${rest%%[!0-9]*}
    if [ "$major" -lt 4 ] || { [ "$major" -eq 4 ] && [ "$minor" -lt 18 ]; }; then
        fail "the kernel is $kernel" "the agent needs Linux 4.18 or newer, to track changes 5.15 or newer" \
            "update the kernel"
    fi
    need curl curl
    need sha256sum coreutils
    need mktemp coreutils
}

# Whether the file is the server's executable.
is_right() {
    [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$DIGEST  -" ]
}

install_program() {
    if is_right "$PROGRAM"; then
        echo "$PROGRAM is up to date"
        return
    fi
    mkdir -p "${PROGRAM%/*}"
    fresh=$(mktemp "$PROGRAM.XXXXXX")
    trap 'rm -f "$fresh"' EXIT
    curl -fsSk --pinnedpubkey "$PIN" -o "$fresh" "$URL/agent/lifeboat" ||
        fail "the executable could not be fetched from $URL" \
            "the server was stopped, or another one answers there now" "look at the server, then run this again"
    is_right "$fresh" ||
        fail "the executable that came is not the one that the server announced" \
            "the server was updated in between, or the transfer was damaged" "run this again"
    chmod 755 "$fresh"
    "$fresh" --version >/dev/null 2>&1 ||
        fail "the server's executable does not run on this machine" \
            "the system's C library is older than that of the server's system" \
            "use a build for an older system at the server"
    # A running agent goes on with the old file until it is restarted below.
    mv -f "$fresh" "$PROGRAM"
    trap - EXIT
    echo "installed $PROGRAM"
}

uninstall() {
    [ "$(id -u)" = 0 ] || fail "this needs root" "sudo was left out" "run it with: | sudo sh -s -- --uninstall"
    if [ -x "$PROGRAM" ]; then
        "$PROGRAM" agent uninstall --state-dir "$STATE"
    fi
    rm -f "$PROGRAM" "$PROGRAM.previous" "$PROGRAM.new"
    echo "the agent is removed; the server keeps this machine's recovery points until replication is disabled there"
}

main() {
    token=${LIFEBOAT_JOIN_TOKEN-}
    remove=no
    left=$#
    # What is for `agent join` goes round to the end.
    while [ "$left" -gt 0 ]; do
        case $1 in
        --uninstall)
            remove=yes
            shift
            left=$((left - 1))
            ;;
        --token | --name | --disk)
            [ "$left" -ge 2 ] || fail "$1 needs a value" "the command was cut" "copy it whole"
            option=$1
            value=$2
            shift 2
            left=$((left - 2))
            if [ "$option" = --token ]; then
                token=$value
            else
                set -- "$@" "$option" "$value"
            fi
            ;;
        *)
            fail "$1 is not known" "the command is misspelt" "--token TOKEN, --name NAME, --disk DEVICE or --uninstall"
            ;;
        esac
    done
    if [ "$remove" = yes ]; then
        uninstall
        return
    fi
    check_machine
    install_program
    # In the environment: arguments can be read by everybody on this machine.
    LIFEBOAT_JOIN_TOKEN=$token "$PROGRAM" agent join --keep --state-dir "$STATE" --server "$DATA" \
        --fingerprint "$FINGERPRINT" "$@"
    "$PROGRAM" agent install --state-dir "$STATE"
}

main "$@"
