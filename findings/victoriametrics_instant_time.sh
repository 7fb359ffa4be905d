#!/bin/bash
# VictoriaMetrics answers an instant query for time T with values of 30 s earlier, stamped with T.
#
# Guess: as in Prometheus, a query evaluated at `time=T` sees the samples up to T, and
# vector(time()) has the value T; a server that hides the newest samples (-search.latencyOffset)
# stamps its answer with the time it really looked at. The parameter `latency_offset` switches
# that off.
# Seen (Debian: 1.79.5, 1.112.0): the sample is stamped T, its value is T - 30. With
# `latency_offset=1ms` 1.112 evaluates at T, 1.79 still at T - 30. With `nocache=1`, which is
# documented for the cache only, both evaluate at T.
# Who would trip over it: whatever decides on fresh data (alerts, rollout gates): the timestamp of
# the answer does not show that the newest 30 s are missing.
set -euo pipefail
root=$(mktemp -d)
trap 'pkill -f "$root/" || :; rm -rf "$root"' EXIT
apt-get install -y -q curl ca-certificates jq >/dev/null
port=18428

# Prints the suite's package version and, for each parameter, how many seconds before T a query is
# evaluated, and whether its sample is stamped with T.
look() {
    local suite=$1 dir=$root/$1
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/data"
    echo "deb http://deb.debian.org/debian $suite main" >"$dir/sources.list"
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache")
    "${apt[@]}" update >/dev/null 2>&1
    (cd "$dir" && "${apt[@]}" download "victoria-metrics=$2" >/dev/null 2>&1 && dpkg -x ./*.deb root)
    "$dir/root/usr/bin/victoria-metrics" -storageDataPath="$dir/data" -httpListenAddr=127.0.0.1:$port \
        >"$dir/log" 2>&1 &
    server=$!
    curl -s --retry 30 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/health" >/dev/null
    echo "victoria-metrics $2"
    local parameter now
    for parameter in none=1 latency_offset=1ms nocache=1; do
        now=$(date +%s)
        curl -s "http://127.0.0.1:$port/api/v1/query" --data-urlencode 'query=vector(time())' \
            -d "time=$now" -d "$parameter" |
            jq -r --argjson now "$now" --arg p "$parameter" '.data.result[0].value
                | "\($p): stamped T - \($now - .[0]), value T - \(($now - (.[1] | tonumber)) / 10 | round * 10)"'
    done
    kill "$server"
    wait "$server" 2>/dev/null || :
}

seen=$(look bookworm 1.79.5+ds1-2+b5; look trixie 1.112.0+ds1-2)
echo "$seen"
[[ $seen == "victoria-metrics 1.79.5+ds1-2+b5
none=1: stamped T - 0, value T - 30
latency_offset=1ms: stamped T - 0, value T - 30
nocache=1: stamped T - 0, value T - 0
victoria-metrics 1.112.0+ds1-2
none=1: stamped T - 0, value T - 30
latency_offset=1ms: stamped T - 0, value T - 0
nocache=1: stamped T - 0, value T - 0" ]]
