//! Finds the line of the verifier's log that says why it refuses a program.

/// Prefixes of the lines with statistics (print_verification_stats,
/// kernel/bpf/verifier.c): "processed" up to 6.12, "insns processed" in 7.2.
const STATISTICS: [&str; 4] = [
    "processed ",
    "insns processed ",
    "verification time ",
    "stack depth ",
];

/// The last line that is not statistics.
pub(super) fn reason(log: &str) -> Option<&str> {
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &str = "program of this type cannot use helper bpf_probe_read#4";

    #[test]
    fn the_reason_stands_before_the_statistics() {
        for statistics in [
            "processed 17 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1",
            "verification time 73 usec\nstack depth 0\nprocessed 17 insns (limit 1000000) max_states_per_insn 0",
            "verification time 73 usec\nstack depth 16+0 max 16\ninsns processed 17",
        ] {
            let log = format!("0: R1=ctx()\n{REFUSAL}\n{statistics}\n\n");
            assert_eq!(reason(&log), Some(REFUSAL), "{statistics}");
        }
        assert_eq!(reason("insns processed 17\n"), None);
        assert_eq!(reason(""), None);
    }
}
