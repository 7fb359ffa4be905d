#!/bin/bash
# The crate `prometheus` takes two series for one if their label values are the same when joined.
#
# Guess: with_label_values(["a", "bc"]) and with_label_values(["ab", "c"]) are two series.
# Seen (prometheus 0.14.0): they are one. The index of a vector hashes the values one after the
# other with nothing between them, and compares nothing else: the second call returns the first
# series, and its value goes there.
# Who would trip over it: exporters whose labels hold names that others choose, such as a module
# and a function.
set -euo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root"
cargo init --quiet --bin --name joined .
cargo add --quiet prometheus@=0.14.0 --no-default-features
cat >src/main.rs <<'RUST'
use prometheus::{IntGaugeVec, Opts, TextEncoder, core::Collector};

fn main() {
    let gauges = IntGaugeVec::new(Opts::new("functions", "help"), &["module", "function"]).unwrap();
    gauges.with_label_values(&["a", "bc"]).set(1);
    gauges.with_label_values(&["ab", "c"]).set(2);
    print!("{}", TextEncoder::new().encode_to_string(&gauges.collect()).unwrap());
}
RUST
seen=$(cargo run --quiet 2>/dev/null | grep -v '^#')
echo "prometheus 0.14.0: $seen"
[[ $seen == 'functions{function="bc",module="a"} 2' ]]
