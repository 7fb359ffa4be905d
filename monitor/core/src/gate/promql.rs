//! The queries. All of them select the hosts of one job and selector, and all but those on
//! `up` also one patch. Every value that goes into a query is quoted here.

use std::time::Duration;

use super::{
    answer::Host,
    selector::{Selector, quote},
};

/// A regular expression that matches exactly this value. Prometheus's regular expressions
/// (RE2) allow a backslash before any ASCII punctuation.
fn literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii_punctuation() {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Which series the queries select.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Prometheus job of the monitors.
    pub job: String,
    /// Which hosts of the job.
    pub selector: Selector,
    /// Name of the patch.
    pub patch: String,
    /// How far back to search for data on a host that is down.
    pub lookback: Duration,
    /// How long ago Prometheus must have seen the patch enabled on a host that has soaked.
    pub seen_before: Duration,
    /// A host that could be scraped within this time may only have missed a scrape.
    pub blip: Duration,
}

impl Scope {
    /// The label matchers that select the hosts, as in `up{…}`.
    #[must_use]
    pub fn hosts(&self) -> String {
        let job = format!("job={}", quote(&self.job));
        if self.selector.0.is_empty() {
            job
        } else {
            format!("{job},{}", self.selector)
        }
    }

    fn patch(&self) -> String {
        format!("{},patch={}", self.hosts(), quote(&self.patch))
    }

    /// Label matchers for the patch on the given hosts only.
    fn of(&self, silent: &[&Host]) -> String {
        Self::among(&self.patch(), silent)
    }

    /// Narrows the matchers to the given hosts, if they are few enough for naming them to be
    /// cheaper than selecting all hosts.
    fn among(matchers: &str, silent: &[&Host]) -> String {
        if silent.len() > NAMED {
            return matchers.to_owned();
        }
        let names: Vec<String> = silent.iter().map(|host| literal(&host.instance)).collect();
        format!("{matchers},instance=~{}", quote(&names.join("|")))
    }
}

/// The time over which scrapes are counted to measure the scrape interval.
pub const WINDOW: Duration = Duration::from_secs(300);

/// Most hosts that are named in one query.
const NAMED: usize = 500;

/// One query of the gate. All are evaluated at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Whether the last scrape of the host succeeded.
    Up,
    /// Time of that scrape, in seconds since 1970.
    Scraped,
    /// Hosts that Prometheus scraped within the lookback but no longer scrapes.
    Gone,
    /// How often the host was scraped in the last [`WINDOW`].
    Scrapes,
    /// How often it was scraped in the [`WINDOW`] before that.
    ScrapesBefore,
    /// Whether a scrape succeeded `seen_before` ago.
    UpBefore,
    /// Whether the patch was enabled `seen_before` ago.
    EnabledBefore,
    /// Whether the patch is enabled.
    Enabled,
    /// Time since which the patch has been in force, in seconds since 1970.
    PatchingComplete,
    /// By how many seconds the host's clock was behind at the last scrape.
    Behind,
    /// Seconds between the writing of the host's textfile and the scrape of it.
    FileAge,
    /// Whether the monitor could read which livepatches are loaded, at the last scrape.
    SysfsRead,
    /// Hosts in transition of the patch, by direction.
    Transition,
    /// Pending tasks of a transition that counts as stuck.
    Stuck,
    /// Hosts where a transition was forced.
    Forced,
    /// Number of crashes with the patch.
    Crashes,
    /// Time of the last crash with the patch, in seconds since 1970.
    LastCrash,
    /// Crash signals that implicate the patch, by signal.
    Signals,
    /// Time of the last such signal, in seconds since 1970.
    LastSignal,
    /// For hosts that are down: whether a scrape succeeded within `blip`.
    UpRecently,
    /// For hosts that are down: whether the patch was enabled when last scraped.
    LastEnabled,
    /// For hosts that are down: whether a transition was running when last scraped.
    LastTransition,
    /// For hosts that are down: number of crashes with the patch.
    LastCrashes,
    /// For hosts that are down: time of the last crash with the patch.
    LastCrashTime,
    /// For hosts that are down: crash signals that implicate the patch.
    LastSignals,
    /// Names of all patches that any host has loaded.
    KnownPatches,
}

impl Question {
    /// The questions about all hosts, which are asked first.
    pub const FIRST: [Self; 19] = [
        Self::Up,
        Self::Scraped,
        Self::Gone,
        Self::Scrapes,
        Self::ScrapesBefore,
        Self::UpBefore,
        Self::EnabledBefore,
        Self::Enabled,
        Self::PatchingComplete,
        Self::Behind,
        Self::FileAge,
        Self::SysfsRead,
        Self::Transition,
        Self::Stuck,
        Self::Forced,
        Self::Crashes,
        Self::LastCrash,
        Self::Signals,
        Self::LastSignal,
    ];
    /// The questions about hosts that are down.
    pub const SILENT: [Self; 6] = [
        Self::UpRecently,
        Self::LastEnabled,
        Self::LastTransition,
        Self::LastCrashes,
        Self::LastCrashTime,
        Self::LastSignals,
    ];

    /// Whether the question is about an earlier time only: the hosts in its answer
    /// need not exist any more.
    #[must_use]
    pub const fn is_past(self) -> bool {
        matches!(
            self,
            Self::Scrapes
                | Self::ScrapesBefore
                | Self::UpBefore
                | Self::EnabledBefore
                | Self::UpRecently
        )
    }

    /// Name of the metric that the question reads.
    #[must_use]
    pub const fn metric(self) -> &'static str {
        match self {
            Self::Up
            | Self::Scraped
            | Self::Gone
            | Self::Scrapes
            | Self::ScrapesBefore
            | Self::UpBefore
            | Self::UpRecently => "up",
            Self::Enabled | Self::LastEnabled | Self::EnabledBefore => "livepatch_patch_enabled",
            Self::PatchingComplete => "livepatch_patching_complete_timestamp_seconds",
            Self::Behind => "livepatch_host_time_seconds",
            Self::FileAge => "livepatch_monitor_textfile_timestamp_seconds",
            Self::SysfsRead => "livepatch_monitor_collector_success",
            Self::Transition | Self::LastTransition => "livepatch_transition_active",
            Self::Stuck => "livepatch_stuck_tasks",
            Self::Forced => "livepatch_patch_forced",
            Self::Crashes | Self::LastCrashes => "livepatch_patch_crashes_total",
            Self::LastCrash | Self::LastCrashTime => "livepatch_patch_last_crash_timestamp_seconds",
            Self::Signals | Self::LastSignals => "livepatch_crash_signals_implicating_total",
            Self::LastSignal => "livepatch_crash_signal_last_timestamp_seconds",
            Self::KnownPatches => "livepatch_patch_info",
        }
    }

    /// The PromQL query. `silent` are the hosts that are down, which only the `Last…`
    /// questions select. Values are compared with `!= 0` rather than `> 0`, so that NaN is
    /// returned and can be reported.
    #[must_use]
    pub fn query(self, scope: &Scope, silent: &[&Host]) -> String {
        let metric = self.metric();
        let lookback = format!("{}s", scope.lookback.as_secs());
        let (hosts, patch) = (scope.hosts(), scope.patch());
        let window = WINDOW.as_secs();
        let blip = scope.blip.as_secs();
        // Prometheus 2.42 refuses an offset of zero.
        let before = match scope.seen_before.as_secs() {
            0 => String::new(),
            seconds => format!(" offset {seconds}s"),
        };
        let of = || scope.of(silent);
        match self {
            // Both keep all labels, so that a host with two series is noticed.
            Self::Up => format!("{metric}{{{hosts}}}"),
            Self::Scraped => format!("timestamp({metric}{{{hosts}}})"),
            Self::Gone => format!(
                "group by (job, instance) (last_over_time({metric}{{{hosts}}}[{lookback}])) \
                 unless on (job, instance) {metric}{{{hosts}}}"
            ),
            Self::Scrapes => {
                format!("max by (job, instance) (count_over_time({metric}{{{hosts}}}[{window}s]))")
            }
            Self::ScrapesBefore => format!(
                "max by (job, instance) \
                 (count_over_time({metric}{{{hosts}}}[{window}s] offset {window}s))"
            ),
            Self::UpBefore => {
                format!("max by (job, instance) ({metric}{{{hosts}}}{before})")
            }
            Self::EnabledBefore => {
                format!("max by (job, instance) ({metric}{{{patch}}}{before})")
            }
            Self::UpRecently => {
                let named = Scope::among(&hosts, silent);
                format!("max by (job, instance) (max_over_time({metric}{{{named}}}[{blip}s]))")
            }
            Self::Enabled | Self::PatchingComplete | Self::LastCrash => {
                format!("max by (job, instance) ({metric}{{{patch}}})")
            }
            Self::Transition => {
                format!("max by (job, instance, direction) ({metric}{{{patch}}} == 1)")
            }
            // Both times are of the same sample: how old it is does not matter.
            Self::Behind | Self::FileAge => format!(
                "max by (job, instance) (timestamp({metric}{{{hosts}}}) - {metric}{{{hosts}}})"
            ),
            Self::SysfsRead => {
                format!("min by (job, instance) ({metric}{{{hosts},collector=\"sysfs\"}})")
            }
            // A sum, unlike a maximum, keeps NaN.
            Self::Crashes => format!("sum by (job, instance) ({metric}{{{patch}}})"),
            Self::Stuck => format!("sum by (job, instance) ({metric}{{{patch}}} != 0)"),
            Self::Forced => format!("max by (job, instance) ({metric}{{{patch}}} == 1)"),
            Self::Signals => {
                format!("sum by (job, instance, signal) ({metric}{{{patch}}} != 0)")
            }
            Self::LastSignal => format!(
                "max by (job, instance, signal) ({metric}{{{hosts}}}) \
                 and on (job, instance, signal) \
                 livepatch_crash_signals_implicating_total{{{patch}}} != 0"
            ),
            Self::LastEnabled | Self::LastCrashTime => {
                let of = of();
                format!("max by (job, instance) (last_over_time({metric}{{{of}}}[{lookback}]))")
            }
            Self::LastTransition => {
                let of = of();
                format!(
                    "max by (job, instance, direction) \
                     (last_over_time({metric}{{{of}}}[{lookback}]) == 1)"
                )
            }
            Self::LastCrashes => {
                let of = of();
                format!(
                    "sum by (job, instance) (last_over_time({metric}{{{of}}}[{lookback}]) != 0)"
                )
            }
            Self::LastSignals => {
                let of = of();
                format!(
                    "sum by (job, instance, signal) \
                     (last_over_time({metric}{{{of}}}[{lookback}]) != 0)"
                )
            }
            Self::KnownPatches => format!("group by (patch) ({metric}{{{hosts}}})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Go's `strconv.Unquote` makes of a double-quoted literal, as far as `quote`
    /// uses it; `None` if the literal ends early or late.
    fn unquoted(text: &str) -> Option<String> {
        let inner = text.strip_prefix('"')?;
        let mut rest = inner.chars();
        let mut value = String::new();
        loop {
            match rest.next()? {
                '"' => return rest.next().is_none().then_some(value),
                '\n' | '\u{fffd}' => return None,
                '\\' => match rest.next()? {
                    c @ ('"' | '\\') => value.push(c),
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    kind @ ('x' | 'u') => {
                        let digits = if kind == 'x' { 2 } else { 4 };
                        let hex: String = rest.by_ref().take(digits).collect();
                        value.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                    }
                    _ => return None,
                },
                c => value.push(c),
            }
        }
    }

    fn scope(patch: &str) -> Scope {
        Scope {
            job: "livepatch-monitor".to_owned(),
            selector: Selector::parse(r#"env="prod""#).unwrap(),
            patch: patch.to_owned(),
            lookback: Duration::from_secs(3600),
            seen_before: Duration::from_secs(1620),
            blip: Duration::from_secs(30),
        }
    }

    #[test]
    fn quotes_and_newlines_stay_inside() {
        let patch = "a\"} or up{x=\"\\\n\0";
        assert_eq!(quote(patch), r#""a\"} or up{x=\"\\\n\x00""#);
        assert_eq!(quote("\u{fffd}"), r#""\ufffd""#);
    }

    #[test]
    fn a_query_of_every_kind_carries_job_selector_and_patch() {
        let host = Host {
            job: "livepatch-monitor".to_owned(),
            instance: "a.b:9969".to_owned(),
        };
        let all = Question::FIRST.into_iter().chain(Question::SILENT);
        for question in all {
            let query = question.query(&scope("fix"), &[&host]);
            let selectors = query.matches('{').count();
            let whose = r#"{job="livepatch-monitor",env="prod""#;
            assert_eq!(query.matches(whose).count(), selectors, "{query}");
            let of_hosts = [
                "up",
                Question::Behind.metric(),
                Question::FileAge.metric(),
                Question::SysfsRead.metric(),
            ];
            if of_hosts.contains(&question.metric()) {
                assert!(!query.contains("patch="), "{query}");
            } else {
                assert!(query.contains(r#",patch="fix""#), "{query}");
            }
            if Question::SILENT.contains(&question) {
                assert!(query.contains(r#"instance=~"a\\.b\\:9969""#), "{query}");
            }
        }
    }

    #[test]
    fn no_offset_of_zero() {
        let mut scope = scope("fix");
        for (seconds, offset) in [(1620, " offset 1620s)"), (0, "\"})")] {
            scope.seen_before = Duration::from_millis(seconds * 1000 + 500);
            for question in [Question::UpBefore, Question::EnabledBefore] {
                let query = question.query(&scope, &[]);
                assert!(query.ends_with(offset), "{query}");
            }
        }
    }

    #[test]
    fn many_silent_hosts_are_not_named() {
        let host = Host {
            job: String::new(),
            instance: "a".to_owned(),
        };
        let many = vec![&host; NAMED + 1];
        let query = Question::LastEnabled.query(&scope("fix"), &many);
        assert!(!query.contains("instance=~"), "{query}");
    }

    proptest! {
        #[test]
        fn quoting_keeps_the_value_and_ends_where_it_should(value in any::<String>()) {
            prop_assert_eq!(unquoted(&quote(&value)), Some(value));
        }

        #[test]
        fn hostile_names_are_one_literal(value in r#"[\\"{}n'` \n=~|]{0,16}"#) {
            prop_assert_eq!(unquoted(&quote(&value)), Some(value));
        }
    }
}
