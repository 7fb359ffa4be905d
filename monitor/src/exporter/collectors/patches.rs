//! The loaded livepatches with their objects and functions, as sysfs shows them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use livepatch_core::{
    patch::{Object, PatchSet},
    transition::BootTime,
};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Moment, Outcome},
        lock,
    },
    kernel::{clock, sysfs::PatchReader},
    metrics::{Exposition, ExpositionError, Metric, bit, count, metrics},
};

metrics! {
    SUPPORTED = "livepatch_supported" Gauge [] "Whether this kernel has /sys/kernel/livepatch.";
    KERNEL_INFO = "livepatch_kernel_info" Gauge ["release"] "The running kernel's release; always 1.";
    PATCH_INFO = "livepatch_patch_info" Gauge ["patch", "replace", "srcversion"] "A loaded livepatch; always 1.";
    PATCH_ENABLED = "livepatch_patch_enabled" Gauge ["patch"] "Whether the patch is enabled, as sysfs says.";
    PATCH_FUNCTIONS = "livepatch_patch_functions" Gauge ["patch", "object"] "Functions the patch replaces in the object.";
    OBJECT_PATCHED = "livepatch_patch_object_patched" Gauge ["patch", "object"] "Whether the object is patched at present, as sysfs says (kernel 6.1 and later).";
}

/// The loaded livepatches.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The running kernel's release.
    pub release: String,
    /// When the reading of sysfs started.
    pub read_at: BootTime,
    /// What is loaded; `None` where sysfs cannot be read.
    pub set: Option<Arc<PatchSet>>,
}

/// Reads sysfs; keeps what cannot have changed.
#[derive(Debug)]
pub(in crate::exporter) struct Patches {
    reader: Mutex<PatchReader>,
    release: String,
}

impl Patches {
    pub(in crate::exporter) fn new(sysfs: PathBuf, release: String) -> Self {
        Self {
            reader: Mutex::new(PatchReader::new(sysfs)),
            release,
        }
    }

    /// Reads what is loaded; also returns what could not be read.
    pub(in crate::exporter) fn read(&self) -> (Values, Vec<String>) {
        // Taken before reading: a snapshot is as old as its first file.
        let read_at = clock::boot_time();
        let (set, problems) = match lock(&self.reader).read() {
            Ok((set, problems)) => (
                Some(set),
                problems.iter().map(ToString::to_string).collect(),
            ),
            Err(error) => (None, vec![error.to_string()]),
        };
        let release = self.release.clone();
        (
            Values {
                release,
                read_at,
                set,
            },
            problems,
        )
    }
}

impl Collector<All> for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::SYSFS)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let (read, problems) = self.read();
        values.patches = read;
        Outcome::of(problems)
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let read = &collected.values.patches;
        out.gauge(&KERNEL_INFO, [([read.release.as_str()], 1.0)])?;
        let Some(set) = &read.set else {
            return Ok(());
        };
        out.gauge(&SUPPORTED, [([], bit(set.supported))])?;
        out.gauge(
            &PATCH_INFO,
            set.patches.iter().map(|patch| {
                let replace = match patch.replace {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "unknown",
                };
                let srcversion = patch.srcversion.as_deref().unwrap_or("unknown");
                ([patch.name.as_str(), replace, srcversion], 1.0)
            }),
        )?;
        out.gauge(
            &PATCH_ENABLED,
            set.patches
                .iter()
                .filter_map(|patch| Some(([patch.name.as_str()], bit(patch.enabled?)))),
        )?;
        out.gauge(
            &PATCH_FUNCTIONS,
            objects(set).map(|(patch, object)| {
                let functions = count(object.functions.len() as u64);
                ([patch, object.name.as_str()], functions)
            }),
        )?;
        out.gauge(
            &OBJECT_PATCHED,
            objects(set).filter_map(|(patch, object)| {
                Some(([patch, object.name.as_str()], bit(object.patched?)))
            }),
        )?;
        Ok(())
    }
}

/// All objects, each with its patch's name.
fn objects(set: &PatchSet) -> impl Iterator<Item = (&str, &Object)> {
    set.patches.iter().flat_map(|patch| {
        let name = patch.name.as_str();
        patch.objects.iter().map(move |object| (name, object))
    })
}
