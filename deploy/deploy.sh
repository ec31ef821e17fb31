#!/usr/bin/env bash
# Puts the version that was just built into service, wherever Weir runs on this machine; used by `make deploy`.
#
# Under systemd the binary is installed and the units are restarted one after the other. A `weir up` of this folder replaces
# its processes without losing a request. Where neither runs, `weir up` is started and stays.
set -euo pipefail

say() { printf '%s\n' "$*"; }
weir=${1:-target/release/weir}
data=${WEIR_DATA:-.weir}

as_root() { if [[ $EUID == 0 ]]; then "$@"; else sudo "$@"; fi; }

under_systemd() {
    local unit units
    mapfile -t units < <(systemctl list-units --plain --no-legend --state=active 'weir-*.service' | awk '{print $1}')
    as_root install "$weir" /usr/local/bin/weir
    # The configuration of the units, not that of this folder.
    as_root sh -c 'set -a; . /etc/weir/weir.env; exec weir migrate up'
    for unit in "${units[@]}"; do
        say "restarting $unit"
        as_root systemctl restart "$unit"
    done
}

start_up() {
    mkdir -p "$data" && chmod 700 "$data"
    say "starting weir up; it writes to $data/up.log"
    setsid --fork "$weir" up >>"$data/up.log" 2>&1 </dev/null
    for ((tries = 600; tries > 0; tries--)); do
        ! deploy/try.sh health >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    tail -n 20 "$data/up.log" >&2
    return 1
}

if command -v systemctl >/dev/null && systemctl is-active --quiet weir.target 2>/dev/null; then
    under_systemd
elif "$weir" fleet list >/dev/null 2>&1 && [[ -f $data/stack.json ]]; then
    "$weir" migrate up
    "$weir" fleet restart --yes
else
    start_up
fi
deploy/try.sh health
