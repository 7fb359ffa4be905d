//! The families about crashes and what they left behind.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::{
    BOOT_UNCLEAN, CRASH_SIGNALS, CRASHES, EVIDENCE_READY, LAST_CRASH, LAST_CRASH_INFO,
    PATCH_CRASHES, PATCH_LAST_CRASH, PATCH_MISSING, RECORDER_ERRORS, SIGNAL_LAST,
    SIGNALS_IMPLICATING, SIGNALS_MISSED, UPDATE_INTERRUPTED, bit, count, counter, gauge,
};
use livepatch_core::crash::{EvidenceKind, Implicated, Kind, Phase, Signal, capture::Source};

/// What a scrape shows of crashes.
#[derive(Clone, Debug, Default)]
pub struct CrashView {
    /// Signals since the monitor began; none is zero.
    pub signals: BTreeMap<(Signal, Phase), u64>,
    /// Those that implicate a patch.
    pub implicating: BTreeMap<(Signal, String), u64>,
    /// When the last of each was, in seconds since 1970.
    pub last_seen: BTreeMap<Signal, f64>,
    /// The kernel's counts less the monitor's.
    pub missed: BTreeMap<Signal, f64>,
    /// Crashes over all boots; none is zero. `None` where the store cannot be read.
    pub crashes: Option<BTreeMap<(Kind, Phase), u64>>,
    /// Crashes by the patch that they befell or implicate, and when the last was, in
    /// seconds since 1970; patches that are loaded are among them.
    pub of_patch: BTreeMap<String, (u64, Option<f64>)>,
    /// The last crash.
    pub last_crash: Option<LastCrash>,
    /// The boot before this one ended badly.
    pub boot_unclean: Option<bool>,
    /// Half-done packages by package manager.
    pub interrupted: BTreeMap<&'static str, u64>,
    /// Expected patches, and whether each is missing.
    pub missing: BTreeMap<String, bool>,
    /// Notes that did not reach the disk.
    pub recorder_errors: u64,
    /// What of the next crash would be kept.
    pub evidence_ready: BTreeMap<Source, bool>,
}

/// The last crash as its metrics show it.
#[derive(Clone, Debug)]
pub struct LastCrash {
    /// Its kind.
    pub kind: Kind,
    /// Its phase.
    pub phase: Phase,
    /// The patch implicated, or else the one in transition, being loaded or in soak.
    pub patch: Option<String>,
    /// Whether a livepatch is implicated.
    pub implicated: Implicated,
    /// The strongest evidence.
    pub evidence: Option<EvidenceKind>,
    /// When, in seconds since 1970.
    pub unix_seconds: Option<f64>,
}

pub(super) fn families(view: &CrashView) -> prometheus::Result<Vec<Vec<MetricFamily>>> {
    let signals = Signal::ALL.into_iter().flat_map(|signal| {
        Phase::ALL.map(|phase| {
            let seen = view.signals.get(&(signal, phase)).copied();
            (vec![signal.name(), phase.name()], seen.unwrap_or(0))
        })
    });
    let implicating = view
        .implicating
        .iter()
        .map(|((signal, patch), seen)| (vec![signal.name(), patch.as_str()], *seen));
    let by_signal = |values: &BTreeMap<Signal, f64>| {
        values
            .iter()
            .map(|(signal, value)| (vec![signal.name()], *value))
            .collect::<Vec<_>>()
    };
    let mut families = vec![
        counter(&CRASH_SIGNALS, signals)?,
        counter(&SIGNALS_IMPLICATING, implicating)?,
        gauge(&SIGNAL_LAST, by_signal(&view.last_seen))?,
        gauge(&SIGNALS_MISSED, by_signal(&view.missed))?,
        gauge(
            &BOOT_UNCLEAN,
            view.boot_unclean.map(|unclean| (vec![], bit(unclean))),
        )?,
        gauge(
            &UPDATE_INTERRUPTED,
            view.interrupted
                .iter()
                .map(|(manager, packages)| (vec![*manager], count(*packages))),
        )?,
        gauge(
            &PATCH_MISSING,
            view.missing
                .iter()
                .map(|(patch, missing)| (vec![patch.as_str()], bit(*missing))),
        )?,
        counter(&RECORDER_ERRORS, [(vec![], view.recorder_errors)])?,
        gauge(
            &EVIDENCE_READY,
            view.evidence_ready
                .iter()
                .map(|(source, ready)| (vec![source.name()], bit(*ready))),
        )?,
    ];
    if let Some(crashes) = &view.crashes {
        let rows = Kind::ALL.into_iter().flat_map(|kind| {
            Phase::ALL.map(|phase| {
                let seen = crashes.get(&(kind, phase)).copied();
                (vec![kind.name(), phase.name()], seen.unwrap_or(0))
            })
        });
        families.push(counter(&CRASHES, rows)?);
        let of_patch = || view.of_patch.iter();
        families.push(counter(
            &PATCH_CRASHES,
            of_patch().map(|(patch, (crashes, _))| (vec![patch.as_str()], *crashes)),
        )?);
        families.push(gauge(
            &PATCH_LAST_CRASH,
            of_patch().filter_map(|(patch, (_, last))| Some((vec![patch.as_str()], (*last)?))),
        )?);
    }
    if let Some(last) = &view.last_crash {
        let labels = vec![
            last.kind.name(),
            last.phase.name(),
            last.patch.as_deref().unwrap_or_default(),
            last.implicated.name(),
            last.evidence.map_or("none", EvidenceKind::name),
        ];
        families.push(gauge(&LAST_CRASH_INFO, [(labels, 1.0)])?);
        families.push(gauge(
            &LAST_CRASH,
            last.unix_seconds.map(|seconds| (vec![], seconds)),
        )?);
    }
    Ok(families)
}
