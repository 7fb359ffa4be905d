//! Drops the series that nothing at fleet level uses, with the relabelling from a comment in the
//! shipped example configuration, so that exactly this is measured.

use std::fs;

use anyhow::{Context as _, Result};

use crate::host::paths;

const EXAMPLE: &str = "dashboards/prometheus/prometheus.yml";

/// `metric_relabel_configs` for an item of `scrape_configs`.
pub(super) fn relabelling() -> Result<String> {
    let path = paths::root()?.join(EXAMPLE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    uncommented(&text)
        .with_context(|| format!("{} shows no metric_relabel_configs", path.display()))
}

/// The commented block, indented for an item of `scrape_configs`.
fn uncommented(text: &str) -> Option<String> {
    let lines = text
        .lines()
        .map(|line| line.trim_start().strip_prefix('#').unwrap_or_default())
        .skip_while(|line| line.trim() != "metric_relabel_configs:")
        .take_while(|line| !line.is_empty());
    let block: Vec<&str> = lines.collect();
    let first = block.first()?;
    let indent = first.len() - first.trim_start().len();
    Some(
        block
            .iter()
            .map(|line| format!("  {}\n", line.get(indent..).unwrap_or_default()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::prometheus::rule_files;

    /// Where the gate's queries are.
    const GATE: &str = "monitor/core/src/gate/promql.rs";

    #[test]
    fn a_commented_block_is_taken_out() {
        let text =
            "a:\n    # Take this:\n    #   metric_relabel_configs:\n    #     - x: 1\n\nb:\n";
        let block = "  metric_relabel_configs:\n    - x: 1\n";
        assert_eq!(uncommented(text).as_deref(), Some(block));
        assert_eq!(uncommented("metric_relabel_configs:\n"), None);
    }

    /// No rule, no panel of the fleet board and no query of the gate may use a series that is
    /// dropped at the scrape.
    #[test]
    fn nothing_at_fleet_level_asks_for_what_is_dropped() {
        let relabelling = relabelling().unwrap();
        let regex = relabelling
            .lines()
            .find_map(|line| line.trim().strip_prefix("regex: livepatch_("))
            .unwrap();
        let (names, rest) = regex.split_once(')').unwrap();
        assert_eq!(rest, "|process_.+");
        let mut users: String = rule_files()
            .unwrap()
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let boards = paths::root().unwrap().join("dashboards/grafana");
        users += &fs::read_to_string(boards.join("livepatch-fleet.json")).unwrap();
        let gate = fs::read_to_string(paths::root().unwrap().join(GATE)).unwrap();
        let (queries, _) = gate.split_once("#[cfg(test)]").unwrap();
        assert!(queries.contains("livepatch_patch_crashes_total"));
        users += queries;
        for name in names.split('|') {
            let name = format!("livepatch_{}", name.trim_end_matches(".+"));
            let mut asked = users.match_indices(&name).filter(|(at, _)| {
                let after = users[at + name.len()..].chars().next();
                after.is_none_or(|next| !(next.is_ascii_alphanumeric() || next == '_'))
                    && !users[..*at].ends_with(':')
            });
            assert_eq!(asked.next(), None, "{name}");
        }
        assert!(!users.contains("process_"));
        for source in ["recorder", "watchdog", "reboot_on_panic"] {
            assert!(!users.contains(&format!("source=\"{source}\"")), "{source}");
        }
    }
}
