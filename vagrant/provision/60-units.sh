#!/usr/bin/env bash
# systemd units: installed, enabled, started, and started again where what they run is newer than they are.
# Argument: control-plane or node. Waits until they are ready (Type=notify).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case ${1:-} in
control-plane) daemons=(apiserver controllers scheduler) ;;
node) daemons=(pods runtime nodeagent netproxy) ;;
*) fail "60-units.sh: which units?" "control-plane or node" ;;
esac
patience=${WHERRY_PATIENCE:-300}

changed=()
for daemon in "${daemons[@]}"; do
    unit=wherry-$daemon.service
    if ! cmp -s "$project/vagrant/units/$unit" "/etc/systemd/system/$unit"; then
        install -m 644 "$project/vagrant/units/$unit" "/etc/systemd/system/$unit"
        changed+=("$unit")
    fi
done
if [ ${#changed[@]} != 0 ]; then
    systemctl daemon-reload
    say "installed ${changed[*]}"
fi
units=("${daemons[@]/#/wherry-}")
states=$(systemctl is-enabled "${units[@]}" 2>/dev/null || true)
if [ "$(sort -u <<<"$states")" != enabled ]; then
    systemctl enable -q "${units[@]}"
    say "enabled ${units[*]}"
fi

# Which of them run something older than what is installed? Never the pods: containers would end.
stale=()
for daemon in "${daemons[@]}"; do
    [ "$daemon" != pods ] && systemctl is-active -q "wherry-$daemon" || continue
    since=$(systemctl show --timestamp=unix -P ActiveEnterTimestamp "wherry-$daemon")
    for file in "/etc/systemd/system/wherry-$daemon.service" "/etc/wherry/$daemon.yaml" "$venv"/.installed-*; do
        if [ -e "$file" ] && [ "$(stat -c %Y "$file")" -gt "${since#@}" ]; then
            stale+=("wherry-$daemon")
            break
        fi
    done
done
explain() {
    for unit in "${units[@]}"; do
        systemctl is-active -q "$unit" || journalctl -q -n 15 --no-pager -u "$unit" || true
    done >&2
    fail "$1 did not start" "the lines above are its log; more: journalctl -u 'wherry-*'"
}
[ ${#stale[@]} = 0 ] || step "restarted ${stale[*]}" timeout "$patience" systemctl restart "${stale[@]}" || explain "${stale[*]}"
active() { # all of them: is-active asks whether any is, and a unit whose condition fails is no failure to systemctl
    local unit
    for unit in "${units[@]}"; do systemctl is-active -q "$unit" || return; done
}
if ! active; then
    step "started ${1}" timeout "$patience" systemctl start "${units[@]}" && active || explain "${units[*]}"
fi
