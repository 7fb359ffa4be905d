//! Which evidence the next crash would leave.

use std::{collections::BTreeMap, path::PathBuf};

use livepatch_core::{crash::capture::Source, degradation::Degradation};

use super::Values as All;
use crate::{
    exporter::collector::{Collected, Collector, Moment, Outcome},
    host::crash_capture,
    kernel::pstore,
    metrics::{Exposition, ExpositionError, Metric, bit, metrics},
};

metrics! {
    RECORDER_ERRORS = "livepatch_recorder_errors_total" Counter [] "Journal entries of the monitor that did not reach the disk.";
    EVIDENCE_READY = "livepatch_crash_evidence_ready" Gauge ["source"] "Whether this source would keep evidence of the next crash, or restart the machine after it; absent where unknown.";
}

/// Which evidence the next crash would leave.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Whether each source is ready; a source whose state is unknown is left out.
    pub ready: BTreeMap<Source, bool>,
}

/// Reads the kernel's settings; keeps nothing.
#[derive(Debug)]
pub(in crate::exporter) struct CrashCapture {
    procfs: PathBuf,
    sysfs: PathBuf,
    /// Why pstore has no room, as the dumps in it showed at the start.
    pstore_full: Option<String>,
}

impl CrashCapture {
    pub(in crate::exporter) fn new(
        procfs: PathBuf,
        sysfs: PathBuf,
        pstore_full: Option<String>,
    ) -> Self {
        Self {
            procfs,
            sysfs,
            pstore_full,
        }
    }

    /// What the kernel says about each source except the monitor's own journal.
    pub(in crate::exporter) fn read(&self) -> Vec<(Source, bool)> {
        let full = self.full().is_some();
        let mut ready = crash_capture::read(&self.procfs, &self.sysfs);
        for (source, ready) in &mut ready {
            *ready &= *source != Source::Pstore || !full;
        }
        ready
    }

    /// Why pstore has no room for another dump.
    fn full(&self) -> Option<String> {
        let by_dumps = || self.pstore_full.clone();
        by_dumps().or_else(|| match pstore::backend(&self.sysfs)?.as_str() {
            "efi_pstore" | "efi" => pstore::efi_full(&self.sysfs),
            _ => None,
        })
    }
}

impl Collector<All> for CrashCapture {
    fn name(&self) -> &'static str {
        "crash_capture"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::HOST)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, moment: &Moment, values: &mut All) -> Outcome {
        let recorder = (Source::Recorder, moment.recording);
        values.crash_capture = Values {
            ready: self.read().into_iter().chain([recorder]).collect(),
        };
        let errors = moment.recorder_errors;
        let lost = (errors > 0).then(|| Degradation {
            what: format!("journal entries that did not reach the disk: {errors}"),
            remedy: "make sure that --state-dir is writable and not full".to_owned(),
        });
        let full = self.full().map(|what| Degradation {
            what: format!("{what}: the next crash would leave nothing there"),
            remedy:
                "remove old records from /sys/fs/pstore, as systemd-pstore does at a boot, and \
                     restart the monitor"
                    .to_owned(),
        });
        Outcome {
            degradations: lost.into_iter().chain(full).collect(),
            ..Outcome::default()
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let errors = collected.moment.recorder_errors;
        out.counter(&RECORDER_ERRORS, [([], errors)])?;
        let ready = collected.values.crash_capture.ready.iter();
        out.gauge(
            &EVIDENCE_READY,
            ready.map(|(source, ready)| ([source.name()], bit(*ready))),
        )?;
        Ok(())
    }
}
