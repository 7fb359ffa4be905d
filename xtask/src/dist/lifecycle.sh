#!/bin/bash
# The Debian package under a running systemd, reported to the host as JSON (see
# tests/src/protocol.rs). Run by the machine of `cargo xtask dist`.

unit=livepatch-monitor.service
scenario=

say() { printf '%s\n' "$1" >/dev/ttyS1; }
begin() {
    scenario=$1
    say "{\"type\":\"scenario_started\",\"scenario\":\"$1\"}"
}
passed() { say "{\"type\":\"scenario_passed\",\"scenario\":\"$scenario\",\"milliseconds\":0}"; }
note() { say "{\"type\":\"note\",\"text\":\"$(plain <<<"$1")\"}"; }
plain() { tr '\n\t\r' '   ' | tr -d '\000-\037' | sed 's/[\\"]/ /g'; }
end() {
    say '{"type":"done"}'
    sleep 1
    systemctl poweroff -ff
    sleep infinity
}
fail() {
    local log
    log=$(journalctl --no-pager --lines=15 --output=cat --unit="$unit" 2>&1)
    say "{\"type\":\"scenario_failed\",\"scenario\":\"$scenario\",\"reason\":\"$(plain <<<"$1; the journal: $log")\"}"
    end
}
expect() { "$@" || fail "not so: $*"; }

# The metrics, or the page at another path.
scrape() {
    exec 3<>/dev/tcp/127.0.0.1/9969 || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/metrics}" >&3
    cat <&3
    exec 3>&-
}
metric() { grep -qF -- "$1" <<<"$metrics" || fail "no $1 in: $(grep -F -- "${1%%[\{ ]*}" <<<"$metrics")"; }
pid() { systemctl show --property=MainPID --value "$unit"; }
status() { sed -n "s/^$1:\t//p" "/proc/$(pid)/status"; }
install() {
    local output
    output=$(dpkg --install "$1" 2>&1) || fail "dpkg: $output"
}

say "{\"type\":\"booted\",\"release\":\"$(uname -r)\"}"

begin installed
install /lpm/first.deb
expect systemctl --quiet is-active "$unit"
expect systemctl --quiet is-active livepatch-monitor.socket
metrics=$(scrape)
metric 'livepatch_supported 1'
# Debian keeps kprobes to CAP_SYS_ADMIN, which the unit does not have, and panic() takes
# no other probe: that is said, and nothing else is missing.
missing=$(grep 'method="none"' <<<"$metrics" | grep -v 'probe="panic"')
[ -z "$missing" ] || fail "not every probe is attached: $missing"
metric 'livepatch_recorder_errors_total 0'
passed

begin unprivileged
given_up=$(scrape / | sed -n 's/.*Sandbox: rights dropped after the start: <code>\([^<]*\)<.*/, \1,/p')
for from in capabilities no_new_privs files; do
    grep -qF ", $from," <<<"$given_up" || fail "$from is not among what was given up: $given_up"
done
nothing=0000000000000000
for set in CapInh CapPrm CapEff CapAmb; do
    expect [ "$(status $set)" = $nothing ]
done
expect [ "$(status NoNewPrivs)" = 1 ]
expect [ "$(status Seccomp)" = 2 ]
expect [ "$(status Uid | cut -f1)" -gt 1000 ]
# systemd's own words on what it could not set up.
problems=$(journalctl --no-pager --output=cat --unit="$unit" | grep -iE 'degraded|denied|not permitted|failed to')
[ -z "$problems" ] || note "$problems"
passed

begin restarted
before=$(pid)
systemctl restart --no-block "$unit"
# The port stays, and answers once the new one is up.
metrics=$(scrape)
metric 'livepatch_supported 1'
expect [ "$(pid)" != "$before" ]
passed

begin killed
before=$(pid)
kill -9 "$before"
metrics=$(scrape)
metric 'livepatch_supported 1'
expect [ "$(pid)" != "$before" ]
passed

begin upgraded
before=$(pid)
state=$(find /var/lib/private/livepatch-monitor -type f | wc -l)
expect [ "$state" -gt 0 ]
echo 'ARGS="--log.level=debug"' >/etc/default/livepatch-monitor
install /lpm/next.deb
expect systemctl --quiet is-active "$unit"
expect [ "$(pid)" != "$before" ]
expect grep -q debug /etc/default/livepatch-monitor
metrics=$(scrape)
metric 'livepatch_supported 1'
passed

begin removed
dpkg --remove livepatch-monitor >/dev/null 2>&1 || fail "dpkg --remove"
systemctl --quiet is-active "$unit" && fail "it still runs"
scrape >/dev/null 2>&1 && fail "the port is still open"
expect [ -e /etc/default/livepatch-monitor ]
expect [ -d /var/lib/private/livepatch-monitor ]
passed

begin purged
dpkg --purge livepatch-monitor >/dev/null 2>&1 || fail "dpkg --purge"
systemctl daemon-reload
left=$(find / -xdev -name '*livepatch*monitor*' -not -path '/proc/*' -not -path '/sys/*' 2>/dev/null)
[ -z "$left" ] || fail "still there: $left"
failed=$(systemctl --failed --no-legend --plain)
[ -z "$failed" ] || fail "failed units: $failed"
passed

end
