//! How the cost grows with the number of functions of a patch and the number of patches.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Table, cost::Scrapes, milliseconds, scan::scan_cost};
use crate::{eventually::seconds, guest::Guest, helpers::Hold, livepatch, modules, target};

const FUNCTIONS: &[u32] = &[1, 100, 1_000];
const PATCHES: &[u32] = &[1, 10, 50];
const SCRAPES: u32 = 20;
/// The time limit: a thousand functions take the kernel itself a while.
const PATIENCE: Duration = seconds(240);

/// Patches with more and more functions, held up by one task.
pub(super) fn functions(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "A transition that a task holds up, by the functions of its patch: scrapes, median \
             of {SCRAPES}; the monitor's CPU time for each of the kernel's attempts; insmod, \
             with the monitor. Milliseconds"
        ),
        &[
            "functions",
            "scrape",
            "CPU per scrape",
            "CPU per attempt",
            "insmod",
            "resident MiB",
            "scrape bytes",
        ],
    );
    for count in FUNCTIONS {
        target::load()?;
        modules::load("lpm_many")?;
        guest.start_monitor(&[])?;
        guest.hold(&Hold::ONE)?;
        let begin = Instant::now();
        modules::load_with("/modules/lpm_functions.ko", &format!("count={count}"))?;
        let insmod = begin.elapsed();
        let held = "livepatch_blocking_tasks{function=lpm_hold}";
        let metrics = guest.wait_for(PATIENCE, held, 1.0)?;
        metrics.expect(
            "livepatch_patch_functions{patch=lpm_functions,object=lpm_many}",
            f64::from(*count),
        )?;
        let pid = guest.monitor()?.pid();
        let scan = scan_cost(guest)?;
        let scrapes = Scrapes::of_monitor(pid, SCRAPES, scan)?;
        table.row(&[
            count.to_string(),
            milliseconds(scrapes.median),
            format!("{:.1}", scrapes.cpu_milliseconds),
            format!("{scan:.1}"),
            milliseconds(insmod),
            format!("{:.1}", scrapes.resident_mib),
            scrapes.bytes.to_string(),
        ]);
        guest.note(format!("{count} functions measured"))?;
        guest.clean_up()?;
    }
    Ok(table)
}

/// More and more patches in force, stacked on each other.
pub(super) fn patches(guest: &mut Guest) -> Result<Table> {
    let mut table = Table::new(
        &format!(
            "Livepatches of the same function in force: scrapes, median of {SCRAPES}. \
             Milliseconds"
        ),
        &[
            "patches",
            "scrape",
            "CPU per scrape",
            "resident MiB",
            "scrape bytes",
        ],
    );
    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    let mut loaded = 0;
    for count in PATCHES {
        while loaded < *count {
            let name = format!("lpm_stacked_{loaded:03}");
            modules::load_renamed("lpm_stacked_000", &name)?;
            livepatch::wait_transition_done(&name, PATIENCE)?;
            loaded += 1;
        }
        let metrics = guest.scrape()?;
        metrics.expect_sum("livepatch_patch_enabled", f64::from(*count))?;
        let scrapes = Scrapes::of_monitor(pid, SCRAPES, 0.0)?;
        table.row(&[
            count.to_string(),
            milliseconds(scrapes.median),
            format!("{:.1}", scrapes.cpu_milliseconds),
            format!("{:.1}", scrapes.resident_mib),
            scrapes.bytes.to_string(),
        ]);
        guest.note(format!("{count} patches measured"))?;
    }
    Ok(table)
}
