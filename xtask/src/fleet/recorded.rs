//! Recorded expositions: what a simulated host serves in each of its states.
//!
//! A recording is split once into the parts that are the same for every host and the few values
//! that are not, so that a scrape only concatenates them.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    prng,
    sample::{Sample, escaped},
};

/// The state of the recorded host; the file is named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No livepatch is loaded.
    Unpatched,
    /// A transition that is younger than `--stuck-after`.
    Transition,
    /// A transition that is older.
    Stuck,
    /// The patch is in force, and no transition runs.
    Patched,
    /// After the reboot of a host that crashed; no livepatch is loaded.
    Crashed,
}

/// A metric, labels of it, and whether such a series must be above zero.
type Mark = (&'static str, &'static [(&'static str, &'static str)], bool);

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Unpatched => "unpatched",
            Self::Transition => "transition",
            Self::Stuck => "stuck",
            Self::Patched => "patched",
            Self::Crashed => "crashed",
        }
    }

    /// What a recording of this state must contain: each series, and whether it must be above zero
    /// (otherwise it must be absent or zero).
    fn marks(self) -> &'static [Mark] {
        const MOVING: (&str, &[(&str, &str)]) =
            ("livepatch_transition_active", &[("direction", "patch")]);
        const STUCK: &str = "livepatch_stuck_tasks";
        const ENABLED: &str = "livepatch_patch_enabled";
        const COMPLETE: &str = "livepatch_patching_complete_timestamp_seconds";
        const CRASHES: &str = "livepatch_patch_crashes_total";
        match self {
            Self::Unpatched => &[(ENABLED, &[], false), (CRASHES, &[], false)],
            Self::Transition => &[(MOVING.0, MOVING.1, true), (STUCK, &[], false)],
            Self::Stuck => &[(MOVING.0, MOVING.1, true), (STUCK, &[], true)],
            Self::Patched => &[
                (ENABLED, &[], true),
                (COMPLETE, &[], true),
                (MOVING.0, MOVING.1, false),
            ],
            Self::Crashed => &[(ENABLED, &[], false), (CRASHES, &[], true)],
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The phase in which a host crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Transition,
    /// Within `--soak` of its end.
    Soak,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Soak => "soak",
        }
    }
}

/// The values that belong to one host at the time of a scrape. Times are in seconds since 1970; a
/// value is `None` if the host's state does not have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The host's number, for values that differ randomly.
    pub(super) host: usize,
    /// The time of the scrape.
    pub(super) now: f64,
    pub(super) release: &'a str,
    /// When the monitor was started.
    pub(super) monitor_start: f64,
    /// When the running transition began.
    pub(super) transition_start: Option<f64>,
    /// When patching was complete.
    pub(super) complete: Option<f64>,
    /// How long patching took, in seconds.
    pub(super) duration: Option<f64>,
    /// When the host crashed, and in which phase.
    pub(super) crash: Option<(f64, Phase)>,
}

/// A value or a label's value that differs from host to host or scrape to scrape.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Varying {
    Release,
    TransitionStart,
    Complete,
    Duration,
    CrashTime,
    CrashPhase,
    Now,
    MonitorStart,
    CpuSeconds,
    /// Attempts of the kernel to complete the transition, about one a second.
    Attempts,
    /// About the recorded value.
    About(f64),
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Fixed(String),
    Varying(Varying),
}

/// One recording, with the patch's name replaced by that of the rollout.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    parts: Vec<Part>,
    series: usize,
}

impl Recording {
    /// Parses a recording. Its patch is renamed to `patch`; other patches stay.
    pub(super) fn parse(state: State, text: &str, patch: &str) -> Result<Self> {
        let samples = samples(text)?;
        check(state, &samples)?;
        let shaped = Shape {
            state,
            recorded_patch: recorded_patch(&samples)?,
            patch,
        };
        let mut parts = Parts::default();
        for line in text.lines() {
            match Sample::parse(line) {
                Some(sample) if !line.starts_with('#') => shaped.add(&sample, &mut parts)?,
                _ => parts.fixed(line),
            }
            parts.fixed("\n");
        }
        Ok(Self {
            parts: parts.0,
            series: samples.len(),
        })
    }

    /// The number of series in a scrape.
    pub(super) fn series(&self) -> usize {
        self.series
    }

    /// The exposition of a host with these facts.
    pub(super) fn render(&self, facts: &Facts<'_>) -> String {
        let fixed = |part: &Part| match part {
            Part::Fixed(text) => text.len(),
            Part::Varying(_) => 24,
        };
        let mut text = String::with_capacity(self.parts.iter().map(fixed).sum());
        for part in &self.parts {
            match part {
                Part::Fixed(fixed) => text.push_str(fixed),
                Part::Varying(varying) => varying.write(facts, &mut text),
            }
        }
        text
    }
}

impl Varying {
    fn write(self, facts: &Facts<'_>, text: &mut String) {
        let number = match self {
            Self::Release => return text.push_str(facts.release),
            Self::CrashPhase => {
                if let Some((_, phase)) = facts.crash {
                    text.push_str(phase.name());
                }
                return;
            }
            Self::TransitionStart => facts.transition_start,
            Self::Complete => facts.complete,
            Self::Duration => facts.duration,
            Self::CrashTime => facts.crash.map(|(when, _)| when),
            Self::Now => Some(facts.now),
            Self::MonitorStart => Some(facts.monitor_start),
            // A thousandth of a core, which is what a scraped exporter uses.
            Self::CpuSeconds => Some((facts.now - facts.monitor_start).max(0.0) * 0.001),
            Self::Attempts => facts
                .transition_start
                .map(|start| (facts.now - start).max(0.0).floor() + 1.0)
                .or(facts.duration.map(|duration| duration.floor() + 1.0)),
            Self::About(recorded) => {
                let seed = facts.now.to_bits() ^ recorded.to_bits();
                Some(recorded * (0.9 + 0.2 * prng::uniform(seed, facts.host)))
            }
        };
        // A recording has only the values of its state (`Shape::add` ensures it).
        let number = number.unwrap_or(f64::NAN);
        text.push_str(&((number * 1e6).round() / 1e6).to_string());
    }
}

/// What a recording's lines become.
struct Shape<'a> {
    state: State,
    recorded_patch: Option<&'a str>,
    patch: &'a str,
}

impl Shape<'_> {
    fn add(&self, sample: &Sample<'_>, parts: &mut Parts) -> Result<()> {
        parts.fixed(sample.name);
        if !sample.labels.is_empty() {
            for (index, (name, value)) in sample.labels.iter().enumerate() {
                parts.fixed(if index == 0 { "{" } else { "," });
                parts.fixed(name);
                parts.fixed("=\"");
                self.add_label(sample.name, name, value, parts);
                parts.fixed("\"");
            }
            parts.fixed("}");
        }
        parts.fixed(" ");
        match self.varying(sample)? {
            Some(varying) => parts.0.push(Part::Varying(varying)),
            None => parts.fixed(sample.value),
        }
        Ok(())
    }

    fn add_label(&self, metric: &str, name: &str, value: &str, parts: &mut Parts) {
        match name {
            "patch" if Some(value) == self.recorded_patch => {
                parts.fixed(&escaped(self.patch));
            }
            "release" if metric == "livepatch_kernel_info" => {
                parts.0.push(Part::Varying(Varying::Release));
            }
            "phase" if metric == "livepatch_last_crash_info" => {
                parts.0.push(Part::Varying(Varying::CrashPhase));
            }
            _ => parts.fixed(value),
        }
    }

    fn varying(&self, sample: &Sample<'_>) -> Result<Option<Varying>> {
        let moving = matches!(self.state, State::Transition | State::Stuck);
        let patched = self.state == State::Patched;
        let (varying, has_it) = match sample.name {
            "livepatch_transition_start_timestamp_seconds" => (Varying::TransitionStart, moving),
            "livepatch_patching_complete_timestamp_seconds" => (Varying::Complete, patched),
            "livepatch_patching_duration_seconds" => (Varying::Duration, patched),
            "livepatch_last_crash_timestamp_seconds"
            | "livepatch_patch_last_crash_timestamp_seconds" => {
                (Varying::CrashTime, self.state == State::Crashed)
            }
            "livepatch_transition_attempts_total" if moving || patched => (Varying::Attempts, true),
            "livepatch_host_time_seconds" => (Varying::Now, true),
            "process_start_time_seconds" => (Varying::MonitorStart, true),
            "process_cpu_seconds_total" => (Varying::CpuSeconds, true),
            "process_resident_memory_bytes" => (Varying::About(sample.number()), true),
            _ => return Ok(None),
        };
        ensure!(
            has_it,
            "{} does not belong in a recording of a host that is `{}`",
            sample.name,
            self.state
        );
        Ok(Some(varying))
    }
}

/// Parts of a recording; adjacent fixed parts are merged.
#[derive(Debug, Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn fixed(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Fixed(last)) => last.push_str(text),
            _ => self.0.push(Part::Fixed(text.to_owned())),
        }
    }
}

fn samples(text: &str) -> Result<Vec<Sample<'_>>> {
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let sample = Sample::parse(line)
            .with_context(|| format!("line {number} is not the Prometheus text format: {line}"))?;
        ensure!(
            !sample.number().is_nan(),
            "line {number} has its value blanked (NaN); a recording as the exporter served it \
             is needed: {line}"
        );
        samples.push(sample);
    }
    ensure!(!samples.is_empty(), "no sample in it");
    Ok(samples)
}

/// The name of the patch in the recording: `lpm_patch_a`, or the only one.
fn recorded_patch<'a>(samples: &[Sample<'a>]) -> Result<Option<&'a str>> {
    let mut names: Vec<&str> = samples
        .iter()
        .filter_map(|sample| sample.label("patch"))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    if let Some(usual) = names.iter().find(|name| **name == "lpm_patch_a") {
        return Ok(Some(usual));
    }
    match names[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => bail!(
            "it has several patches ({}) and none is lpm_patch_a: record a host with one",
            names.join(", ")
        ),
    }
}

fn check(state: State, samples: &[Sample<'_>]) -> Result<()> {
    for (name, labels, above_zero) in state.marks() {
        let is = samples
            .iter()
            .any(|sample| sample.name == *name && sample.has(labels) && sample.number() > 0.0);
        ensure!(
            is == *above_zero,
            "it is not of a host that is `{state}`: {name}{} {}",
            labels
                .iter()
                .map(|(name, value)| format!("{{{name}=\"{value}\"}}"))
                .collect::<String>(),
            if is { "is above 0" } else { "is not above 0" },
        );
    }
    Ok(())
}

/// One recording for each state.
#[derive(Clone, Debug)]
pub(super) struct Recordings {
    unpatched: Recording,
    transition: Recording,
    stuck: Recording,
    patched: Recording,
    crashed: Recording,
}

impl Recordings {
    /// Reads `STATE.prom` of every state.
    pub(super) fn load(folder: &Path, patch: &str) -> Result<Self> {
        let load = |state: State| {
            let path = folder.join(format!("{state}.prom"));
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Recording::parse(state, &text, patch)
                .with_context(|| format!("{} cannot be served", path.display()))
        };
        Ok(Self {
            unpatched: load(State::Unpatched)?,
            transition: load(State::Transition)?,
            stuck: load(State::Stuck)?,
            patched: load(State::Patched)?,
            crashed: load(State::Crashed)?,
        })
    }

    /// The recording of a state.
    pub(super) fn of(&self, state: State) -> &Recording {
        match state {
            State::Unpatched => &self.unpatched,
            State::Transition => &self.transition,
            State::Stuck => &self.stuck,
            State::Patched => &self.patched,
            State::Crashed => &self.crashed,
        }
    }
}

#[cfg(test)]
mod tests;
