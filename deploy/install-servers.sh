#!/usr/bin/env bash
# Makes sure that the programs are there that Weir starts by itself (redis-server, PostgreSQL) or is built with; used by
# the Makefile. Says nothing when they are. On Debian and Ubuntu it installs what is missing, elsewhere it names it.
#
#   deploy/install-servers.sh [--for-tests | --for-bench]
set -euo pipefail

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Functions came with Redis 7.0; PostgreSQL 15 is the oldest that the tests run on.
readonly REDIS_MIN=7.0 POSTGRES_MIN=15

say() { printf '%s\n' "$*" >&2; }

# at_least WANTED FOUND
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

has() { command -v "$1" >/dev/null; }

# The folder of PostgreSQL's server programs: Debian keeps them out of PATH.
postgres_bin() {
    local bin
    if bin=$(command -v initdb) && bin=$(dirname "$(readlink -f "$bin")") && [[ -x $bin/postgres ]]; then
        echo "$bin"
        return
    fi
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        if [[ -x $bin/initdb && -x $bin/postgres ]]; then
            echo "$bin"
            return
        fi
    done
    return 1
}

redis_is_there() {
    local version
    has redis-server && has redis-cli || return 1
    version=$(redis-server --version | grep -oP ' v=\K[0-9.]+') && at_least "$REDIS_MIN" "$version"
}

postgres_is_there() {
    local bin version
    bin=$(postgres_bin) && has psql || return 1
    version=$("$bin/postgres" --version | grep -oE '[0-9]+' | head -n 1) && at_least "$POSTGRES_MIN" "$version"
}

# What is missing, as Debian packages, in the array `missing`.
look() {
    missing=()
    redis_is_there || missing+=(redis-server)
    postgres_is_there || missing+=(postgresql)
    # Starts the servers so that they die with the process that started them.
    { has setpriv && setpriv --help | grep -q -- --pdeathsig; } || missing+=(util-linux)
    # Rust links with it, and some crates have C in them.
    has cc || missing+=(gcc libc6-dev)
    has make || missing+=(make)
    if [[ $for_tests == yes ]]; then
        # Its file in deploy/ is tested with the real thing.
        has supervisord || missing+=(supervisor)
        # Proxies in front of the gateway, as in deploy/, and clients that mean no good.
        has nginx || missing+=(nginx-light)
        has haproxy || missing+=(haproxy)
        has slowhttptest || missing+=(slowhttptest)
        has h2load || missing+=(nghttp2-client)
        # Delays the fsyncs of a Redis: an answer must not come before them.
        has strace || missing+=(strace)
        # Looks at the gateway's TLS from outside.
        has sslscan || missing+=(sslscan)
        # Holds the alerts of deploy/prometheus against made-up figures.
        has promtool || missing+=(prometheus)
        # Asks what runs as its users do.
        has curl || missing+=(curl)
        # Shows the API's page as people see it.
        has chromium || has chromium-browser || has google-chrome || missing+=(chromium)
        # Tries the API against its own description; the tool itself comes with pip into target/.
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    fi
    if [[ $for_bench == yes ]]; then
        # Another generator of load, to check our own by. The other systems are no packages: see benches/peers.
        has wrk || missing+=(wrk)
        # Counts the bytes of connections.
        has ss || missing+=(iproute2)
    fi
}

# A password is asked for only where somebody can type it.
as_root=()
if [[ $EUID != 0 ]]; then
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n)
fi

# Debian starts a service when it is installed, PostgreSQL with a database cluster of its own. Weir runs private servers
# instead, so the packages are told not to start theirs. A policy of somebody else is not ours to replace.
readonly POLICY=/usr/sbin/policy-rc.d MARK='# Made by Weir while it installs packages.'

forbid_services() {
    [[ ! -e $POLICY ]] || grep -qxF "$MARK" "$POLICY" || return 0
    trap '"${as_root[@]}" rm -f "$POLICY"' EXIT
    trap 'exit 130' INT TERM HUP
    "${as_root[@]}" install -m 755 /dev/stdin "$POLICY" <<<$'#!/bin/sh\n'"$MARK"$'\nexit 101'
}

# Nor do they start with the machine.
disable_services() {
    local package
    has systemctl || return 0
    for package in "${missing[@]}"; do
        case $package in
        redis-server | postgresql | supervisor | haproxy | prometheus)
            "${as_root[@]}" systemctl --quiet disable "$package.service" >&2 || true ;;
        nginx-light)
            "${as_root[@]}" systemctl --quiet disable nginx.service >&2 || true ;;
        esac
    done
}

install_with_apt() {
    say "installing ${missing[*]} (services of theirs stay switched off)"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    forbid_services || return
    "${apt[@]}" update >&2 || say "the lists of packages could not be renewed; going on with the old ones"
    "${apt[@]}" -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" >&2 || return
    disable_services
}

# The rest of the way on foot.
give_up() {
    say "$1"
    say "Weir needs, on this machine or wherever it is built and tested:"
    say "  redis-server and redis-cli, $REDIS_MIN or newer"
    say "  PostgreSQL's server programs (initdb, postgres) and psql, $POSTGRES_MIN or newer"
    say "  setpriv of util-linux, make, a C compiler$([[ $for_tests == no ]] || echo ', supervisord, nginx, haproxy, slowhttptest, h2load, strace, sslscan, promtool, curl, chromium, python3 with venv')"
    say "Missing or too old here: ${missing[*]} (as Debian calls the packages)."
    case $family in
    *debian* | *ubuntu*)
        say "  sudo apt-get update && sudo apt-get install -y ${missing[*]}"
        say "Debian 12 and Ubuntu 24.04 have versions that are new enough; for older ones the Redis and PostgreSQL"
        say "projects publish packages of their own." ;;
    *fedora* | *rhel*) say "  sudo dnf install redis postgresql-server postgresql-contrib util-linux make gcc supervisor strace sslscan" ;;
    *arch*) say "  sudo pacman -S redis postgresql util-linux make gcc supervisor strace sslscan" ;;
    *suse*) say "  sudo zypper install redis postgresql-server util-linux make gcc supervisor strace sslscan" ;;
    *alpine*) say "  sudo apk add redis postgresql16 setpriv build-base supervisor strace sslscan" ;;
    *) say "Weir runs on Linux only; on other systems use a Linux machine or deploy/compose.yaml." ;;
    esac
    exit 1
}

for_tests=no for_bench=no
case ${1-} in
'') ;;
--for-tests) for_tests=yes ;;
--for-bench) for_bench=yes ;;
*) say "usage: $0 [--for-tests | --for-bench]" && exit 2 ;;
esac

if ! has cargo; then
    say "cargo was not found: install Rust 1.95 or newer with rustup (https://rustup.rs), then open a new shell."
    exit 1
fi

# shellcheck source=/dev/null
family=$(. /etc/os-release 2>/dev/null && echo "${ID-} ${ID_LIKE-}") || family=
look
[[ ${#missing[@]} -gt 0 ]] || exit 0

has apt-get || give_up "Only apt-get is known to this script, and this system has none."
[[ $EUID == 0 ]] || has sudo || give_up "Installing packages needs root or sudo."
install_with_apt || give_up "apt-get failed."
look
[[ ${#missing[@]} -eq 0 ]] || give_up "What apt-get has is not enough."
