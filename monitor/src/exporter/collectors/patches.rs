//! The loaded livepatches with their objects and functions, as sysfs shows them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use livepatch_core::{
    degradation::Degradation,
    patch::{Beside, Object, PatchSet},
    transition::BootTime,
};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Moment, Outcome},
        lock,
    },
    kernel::{clock, live_modules::LiveModules, sysfs::PatchReader},
    metrics::{Exposition, ExpositionError, Metric, bit, count, metrics},
};

metrics! {
    SUPPORTED = "livepatch_supported" Gauge [] "Whether this kernel has /sys/kernel/livepatch.";
    KERNEL_INFO = "livepatch_kernel_info" Gauge ["release"] "The running kernel's release; always 1.";
    PATCH_INFO = "livepatch_patch_info" Gauge ["patch", "replace", "srcversion", "version", "build_id"] "A loaded livepatch; always 1.";
    PATCH_ENABLED = "livepatch_patch_enabled" Gauge ["patch"] "Whether the livepatch is enabled, as sysfs says.";
    PATCH_FUNCTIONS = "livepatch_patch_functions" Gauge ["patch", "object"] "Functions that the livepatch replaces in the object, which is a module or vmlinux.";
    OBJECT_PATCHED = "livepatch_patch_object_patched" Gauge ["patch", "object"] "Whether the object that a livepatch is for is patched at present, as sysfs says (kernel 6.1 and later).";
    LEFT_OVER = "livepatch_modules_left_over" Gauge [] "Livepatch modules that are loaded without being in force: disabled or replaced, and not removed.";
    OTHER_MECHANISMS = "livepatch_other_mechanisms" Gauge [] "Other mechanisms that patch the running kernel (Ksplice, KernelCare, the old kpatch core), which the monitor cannot watch; its status page names them.";
}

/// The loaded livepatches according to sysfs.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The running kernel's release.
    pub release: String,
    /// When the reading of sysfs started.
    pub read_at: BootTime,
    /// The livepatches; `None` if sysfs cannot be read.
    pub set: Option<Arc<PatchSet>>,
    /// Other modules and mechanisms that are loaded; empty if `set` is unknown.
    pub beside: Beside,
    /// Whether those could be read.
    pub beside_known: bool,
}

/// Reads sysfs; keeps what cannot change while a module is loaded.
#[derive(Debug)]
pub(in crate::exporter) struct Patches {
    reader: Mutex<PatchReader>,
    release: String,
    live: Mutex<LiveModules>,
    /// Why the livepatches in sysfs are not those of this machine.
    of_another: Option<String>,
}

impl Patches {
    /// In a `container` the livepatches are not read: they are the host's, and would be counted
    /// twice.
    pub(in crate::exporter) fn new(
        sysfs: PathBuf,
        release: String,
        container: Option<&Degradation>,
    ) -> Self {
        Self {
            of_another: container.map(|container| container.what.clone()),
            reader: Mutex::new(PatchReader::new(sysfs)),
            release,
            live: Mutex::default(),
        }
    }

    /// Reads what is loaded; also returns what could not be read.
    pub(in crate::exporter) fn read(&self) -> (Values, Vec<String>) {
        // Taken before reading: a snapshot is as old as its first file.
        let read_at = clock::boot_time();
        let release = self.release.clone();
        if let Some(of_another) = &self.of_another {
            let values = Values {
                release,
                read_at,
                ..Values::default()
            };
            return (values, vec![of_another.clone()]);
        }
        let (set, problems) = match lock(&self.reader).read() {
            Ok((set, problems)) => (
                Some(set),
                problems.iter().map(ToString::to_string).collect(),
            ),
            Err(error) => (None, vec![error.to_string()]),
        };
        (
            Values {
                release,
                read_at,
                set,
                ..Values::default()
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
        let (mut read, mut problems) = self.read();
        if let Some(set) = &read.set {
            let (beside, unreadable) = lock(&self.live).beside(lock(&self.reader).sysfs(), set);
            read.beside = beside;
            read.beside_known = unreadable.is_empty();
            problems.extend(unreadable);
        }
        values.patches = read;
        Outcome::of(problems)
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let read = &collected.values.patches;
        if self.of_another.is_none() {
            out.gauge(&KERNEL_INFO, [([read.release.as_str()], 1.0)])?;
        }
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
                let version = patch.version.as_deref().unwrap_or("unknown");
                let build_id = patch.build_id.as_deref().unwrap_or("unknown");
                let labels = [&patch.name, replace, srcversion, version, build_id];
                (labels, 1.0)
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
        if read.beside_known {
            let left_over = count(read.beside.left_over.len() as u64);
            out.gauge(&LEFT_OVER, [([], left_over)])?;
            let others = count(read.beside.mechanisms.len() as u64);
            out.gauge(&OTHER_MECHANISMS, [([], others)])?;
        }
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
