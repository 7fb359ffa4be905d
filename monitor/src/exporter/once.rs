//! `serve --textfile DIR --once`: the text file for a timer instead of a service. Nothing is
//! watched and nothing is recorded, so the file holds only what is true at one moment.

use anyhow::bail;
use tracing::info;

use super::{Options, sandbox, startup, startup::Started, textfile::Textfile};

/// The metrics that need no watching. The others count from the start of the monitor, or describe
/// what it watches.
const AT_ONE_MOMENT: [&str; 27] = [
    "livepatch_supported",
    "livepatch_kernel_info",
    "livepatch_patch_info",
    "livepatch_patch_enabled",
    "livepatch_patch_functions",
    "livepatch_patch_object_patched",
    "livepatch_patch_functions_in_force",
    "livepatch_patch_functions_not_in_force",
    "livepatch_transition_active",
    "livepatch_transition_start_timestamp_seconds",
    "livepatch_pending_tasks",
    "livepatch_stuck_tasks",
    "livepatch_blocking_tasks",
    "livepatch_crashes_total",
    "livepatch_patch_crashes_total",
    "livepatch_patch_last_crash_timestamp_seconds",
    "livepatch_last_crash_info",
    "livepatch_last_crash_timestamp_seconds",
    "livepatch_update_interrupted",
    "livepatch_update_interrupted_by_crash_info",
    "livepatch_patch_missing",
    "livepatch_modules_left_over",
    "livepatch_other_mechanisms",
    "livepatch_drill",
    "livepatch_monitor_build_info",
    "livepatch_monitor_textfile_timestamp_seconds",
    "livepatch_monitor_collector_success",
];

/// Writes the file once.
///
/// # Errors
/// It cannot be written.
pub async fn run_once(options: Options) -> anyhow::Result<()> {
    let Some(directory) = options.textfile.clone() else {
        bail!("--once needs --textfile");
    };
    let Started { mut exporter, .. } = startup::start(options)?;
    sandbox::enter(&mut exporter, &[]);
    let file = Textfile::new(&directory);
    let written = file.write(|| at_one_moment(&exporter.scrape()));
    written.map_err(anyhow::Error::msg)?;
    info!("the metrics are written");
    Ok(())
}

fn at_one_moment(exposition: &str) -> String {
    let is_kept = |line: &&str| {
        let rest = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        let name = rest.unwrap_or(line);
        let name = name.split(['{', ' ']).next().unwrap_or_default();
        AT_ONE_MOMENT.contains(&name)
    };
    exposition.split_inclusive('\n').filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::collectors;

    #[test]
    fn every_name_is_a_metric() {
        let contract = collectors::tests::contract();
        for name in AT_ONE_MOMENT {
            assert!(contract.iter().any(|metric| metric.name == name), "{name}");
        }
    }

    #[test]
    fn what_counts_from_the_start_is_left_out() {
        let text = "# HELP livepatch_supported Whether.\n# TYPE livepatch_supported gauge\n\
            livepatch_supported 1\n# TYPE livepatch_crash_signals_total counter\n\
            livepatch_crash_signals_total{signal=\"oops\"} 0\n\
            livepatch_crashes_total 1\n";
        let kept = at_one_moment(text);
        assert_eq!(kept.lines().count(), 4, "{kept}");
        assert!(!kept.contains("signals"), "{kept}");
    }
}
