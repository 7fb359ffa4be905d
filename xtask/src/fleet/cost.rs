//! What Prometheus and the simulator cost, read from their own counters.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context as _, Result};

use super::{sample::Sample, server};
use crate::{host::http, monitoring::prometheus::Prometheus};

/// Bytes of memory that are left to the rest of the machine.
pub(super) const RESERVE: f64 = 1.5 * 1024.0 * 1024.0 * 1024.0;

/// `USER_HZ`, in which the kernel reports CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

/// Counters of a Prometheus at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// When they were read.
    pub(super) at: Instant,
    /// Seconds of CPU time that Prometheus has used.
    pub(super) cpu: f64,
    /// Its resident memory in bytes.
    pub(super) resident: f64,
    /// Series in its head.
    pub(super) head_series: f64,
    /// Samples ingested since it started.
    pub(super) samples: f64,
    /// The duration of the last evaluation of each rule group, in seconds.
    pub(super) groups: BTreeMap<String, f64>,
    /// Evaluations of rules that failed, and of groups that were left out.
    pub(super) rule_failures: f64,
    /// Evaluations of groups that were left out because the last was not over.
    pub(super) rules_missed: f64,
    /// Seconds that threads of Prometheus have waited for a core that others used.
    pub(super) waited: f64,
    /// Seconds of CPU time that the simulated hosts have used.
    pub(super) simulator_cpu: f64,
}

impl Reading {
    /// Reads Prometheus's own metrics.
    pub(super) fn take(prometheus: &Prometheus) -> Result<Self> {
        let text = http::get(prometheus.port(), "/metrics")?;
        let mut reading = Self::of(&text);
        reading.waited = waited(prometheus.pid())?;
        reading.simulator_cpu = simulator_cpu()?;
        Ok(reading)
    }

    fn of(text: &str) -> Self {
        let mut reading = Self {
            at: Instant::now(),
            cpu: 0.0,
            resident: 0.0,
            head_series: 0.0,
            samples: 0.0,
            groups: BTreeMap::new(),
            rule_failures: 0.0,
            rules_missed: 0.0,
            waited: 0.0,
            simulator_cpu: 0.0,
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for sample in lines.filter_map(Sample::parse) {
            let number = sample.number();
            match sample.name {
                "process_cpu_seconds_total" => reading.cpu = number,
                "process_resident_memory_bytes" => reading.resident = number,
                "prometheus_tsdb_head_series" => reading.head_series = number,
                "prometheus_tsdb_head_samples_appended_total" => reading.samples += number,
                "prometheus_rule_evaluation_failures_total" => reading.rule_failures += number,
                "prometheus_rule_group_iterations_missed_total" => reading.rules_missed += number,
                "prometheus_rule_group_last_duration_seconds" => {
                    // A group is named by its file and its name.
                    let name = sample.label("rule_group").unwrap_or_default();
                    let name = name.rsplit_once(';').map_or(name, |(_, group)| group);
                    reading.groups.insert(name.to_owned(), number);
                }
                _ => {}
            }
        }
        reading
    }

    /// Cores that Prometheus used since an earlier reading.
    pub(super) fn cores_since(&self, earlier: &Self) -> f64 {
        (self.cpu - earlier.cpu) / self.seconds_since(earlier)
    }

    /// Seconds that its threads waited for a core per second of CPU time: how much other work on
    /// the machine slowed it down.
    pub(super) fn waiting_since(&self, earlier: &Self) -> f64 {
        (self.waited - earlier.waited) / (self.cpu - earlier.cpu).max(0.001)
    }

    /// Cores that the simulator used since an earlier reading.
    pub(super) fn simulator_cores_since(&self, earlier: &Self) -> f64 {
        (self.simulator_cpu - earlier.simulator_cpu) / self.seconds_since(earlier)
    }

    /// Samples a second since an earlier reading.
    pub(super) fn samples_since(&self, earlier: &Self) -> f64 {
        (self.samples - earlier.samples) / self.seconds_since(earlier)
    }

    fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.duration_since(earlier.at).as_secs_f64().max(0.001)
    }
}

/// The peak memory of a process, in bytes.
pub(super) fn peak_memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kibibytes(&text, "VmHWM").with_context(|| format!("{path} has no VmHWM"))
}

/// Available memory without swapping, in bytes.
pub(super) fn available_memory() -> Result<f64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    kibibytes(&text, "MemAvailable").with_context(|| format!("{path} has no MemAvailable"))
}

/// The load average of the last minute.
pub(super) fn load() -> Result<f64> {
    let path = "/proc/loadavg";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("cannot parse {path}: {text}"))
}

fn kibibytes(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024.0)
}

fn waited(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/task");
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
        let file = entry.with_context(|| format!("cannot read {path}"))?.path();
        // On CPU, waiting for one, and time slices. A thread may have ended meanwhile.
        let text = fs::read_to_string(file.join("schedstat")).unwrap_or_default();
        let waited = text.split_whitespace().nth(1);
        nanoseconds += waited.and_then(|word| word.parse().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

fn simulator_cpu() -> Result<f64> {
    let mut ticks = 0.0;
    for entry in fs::read_dir("/proc/self/task").context("cannot read /proc/self/task")? {
        let folder = entry.context("cannot read /proc/self/task")?.path();
        // The thread has ended meanwhile.
        let Ok(stat) = fs::read_to_string(folder.join("stat")) else {
            continue;
        };
        ticks += thread_ticks(&stat, server::THREAD).unwrap_or(0.0);
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// User and system time of a thread of this name, in `/proc/PID/task/TID/stat`.
fn thread_ticks(stat: &str, name: &str) -> Option<f64> {
    let (head, tail) = stat.rsplit_once(')')?;
    if head.split_once('(')?.1 != name {
        return None;
    }
    // utime and stime are fields 14 and 15 of the line, 12 and 13 after the name.
    let mut fields = tail.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

pub(super) fn gibibytes(bytes: f64) -> f64 {
    bytes / (1024.0 * 1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let reading = Reading::of(
            "# HELP x y\n\
             process_cpu_seconds_total 12.5\n\
             prometheus_tsdb_head_samples_appended_total{type=\"float\"} 7\n\
             prometheus_tsdb_head_samples_appended_total{type=\"histogram\"} 1\n\
             prometheus_rule_group_last_duration_seconds{rule_group=\"/a/b.yml;fleet\"} 0.25\n",
        );
        assert_eq!(reading.cpu.to_bits(), 12.5_f64.to_bits());
        assert_eq!(reading.samples.to_bits(), 8.0_f64.to_bits());
        assert_eq!(reading.groups["fleet"].to_bits(), 0.25_f64.to_bits());
    }

    #[test]
    fn proc_is_read() {
        assert_eq!(
            kibibytes("VmPeak:\t 9 kB\nVmHWM:\t  2 kB\n", "VmHWM"),
            Some(2048.0)
        );
        assert_eq!(kibibytes("VmHWMx: 2 kB\n", "VmHWM"), None);
        let stat = "7 (hosts) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0";
        assert_eq!(thread_ticks(stat, "hosts"), Some(42.0));
        assert_eq!(thread_ticks(stat, "other"), None);
        assert!(available_memory().unwrap() > 0.0);
    }
}
