#!/bin/bash
# dmesg --json on a file repeats the rest of the file in every message, and loses the facility.
#
# Guess: `dmesg --json --file FILE` prints one object for each line of the file, with its own text
# in "msg" and, in "pri", the number that stands in `<N>` (facility * 8 + level).
# Seen (Debian 12: util-linux 2.38.1): "msg" holds the line and all lines after it, so the output
# grows with the square of the file, and whoever counts a text in it counts it once for each line
# before. "pri" is facility + level: user.warning, <12>, reads 5, which is kern.notice.
# Debian 13 (2.41.5): "msg" holds the line alone, and "pri" is 12.
# Who would trip over it: whatever reads saved kernel logs as JSON.
set -euo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
apt-get install -y -q jq >/dev/null 2>&1
printf '<6>[    1.000000] one\n<4>[    2.000000] two\n<12>[    3.000000] three\n' >"$root/log"
for version in bookworm:2.38.1-5+deb12u3 trixie:2.41.5-0+deb13u1; do
    suite=${version%%:*} dir=$root/${version%%:*}
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    echo "deb http://deb.debian.org/debian $suite main" >"$dir/sources.list"
    apt=(apt-get -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache")
    "${apt[@]}" update >/dev/null 2>&1
    (cd "$dir" && "${apt[@]}" download "util-linux=${version#*:}" libc6 libtinfo6 >/dev/null 2>&1
        for deb in ./*.deb; do dpkg -x "$deb" root; done)
    libraries=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
    echo "util-linux ${version#*:}"
    "$(find "$dir/root" -name ld-linux-x86-64.so.2 -path "*x86_64-linux-gnu*")" --library-path "$libraries" \
        "$(find "$dir/root" -path "*bin/dmesg")" --json --file "$root/log" |
        jq -c '.dmesg[] | [.pri, (.msg | split("\n") | map(select(. != "")) | length)]'
done >"$root/seen"
cat "$root/seen"
# [pri, number of lines in msg]
cmp - "$root/seen" <<'SEEN'
util-linux 2.38.1-5+deb12u3
[6,3]
[4,2]
[5,1]
util-linux 2.41.5-0+deb13u1
[6,1]
[4,1]
[12,1]
SEEN
