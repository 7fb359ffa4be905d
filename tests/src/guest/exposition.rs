//! The Prometheus text format, parsed, with checks that report what was found.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, bail, ensure};

/// The series of one scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    samples: BTreeMap<Series, f64>,
}

/// A metric's name and labels. Displays as `name{label=value,…}`, which is also how scenarios write
/// one: no value that they look for has a comma or a brace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        match labels.is_empty() {
            true => write!(formatter, "{}", self.name),
            false => write!(formatter, "{}{{{}}}", self.name, labels.join(",")),
        }
    }
}

impl Series {
    fn from_selector(selector: &str) -> Result<Self> {
        let (name, labels) = match selector.split_once('{') {
            None => (selector, ""),
            Some((name, rest)) => (
                name,
                rest.strip_suffix('}')
                    .with_context(|| format!("`{selector}` has no closing brace"))?,
            ),
        };
        let labels = labels
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (label, value) = pair
                    .split_once('=')
                    .with_context(|| format!("`{pair}` in `{selector}` has no `=`"))?;
                Ok((label.to_owned(), value.to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            labels,
        })
    }

    /// Whether it has the same name, and at least these labels.
    fn matches(&self, selector: &Self) -> bool {
        self.name == selector.name
            && selector
                .labels
                .iter()
                .all(|(label, value)| self.labels.get(label) == Some(value))
    }
}

impl Exposition {
    /// Parses a scrape; anything malformed or duplicate is an error.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut samples = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (series, value) = parse_sample(line)
                .with_context(|| format!("line {} of the scrape: `{line}`", number + 1))?;
            if samples.insert(series.clone(), value).is_some() {
                bail!("{series} is in the scrape twice");
            }
        }
        ensure!(!samples.is_empty(), "the scrape is empty");
        Ok(Self {
            text: text.to_owned(),
            samples,
        })
    }

    /// The text as it was scraped.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The value of exactly this series, if it exists.
    pub(crate) fn value(&self, selector: &str) -> Result<Option<f64>> {
        Ok(self.samples.get(&Series::from_selector(selector)?).copied())
    }

    /// The value of exactly this series.
    pub(crate) fn get(&self, selector: &str) -> Result<f64> {
        self.value(selector)?
            .with_context(|| format!("no {selector}; there is: {}", self.alike(selector)))
    }

    /// Fails unless exactly this series has this value.
    #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
    pub(crate) fn expect(&self, selector: &str, expected: f64) -> Result<()> {
        let value = self.get(selector)?;
        ensure!(
            value == expected,
            "{selector} is {value}, not {expected}; there is: {}",
            self.alike(selector)
        );
        Ok(())
    }

    /// The sum of all series with this name and at least these labels, if there is one.
    pub(crate) fn sum_of_any(&self, selector: &str) -> Result<Option<f64>> {
        let selector = Series::from_selector(selector)?;
        let mut matching = self
            .samples
            .iter()
            .filter(|(series, _)| series.matches(&selector))
            .map(|(_, value)| *value);
        Ok(matching.next().map(|first| first + matching.sum::<f64>()))
    }

    /// The same; an error if there is none.
    pub(crate) fn sum(&self, selector: &str) -> Result<f64> {
        self.sum_of_any(selector)?
            .with_context(|| format!("no {selector}; there is: {}", self.alike(selector)))
    }

    /// Fails unless there are matching series, and they add up to this.
    #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
    pub(crate) fn expect_sum(&self, selector: &str, expected: f64) -> Result<()> {
        let sum = self.sum(selector)?;
        ensure!(
            sum == expected,
            "{selector} add up to {sum}, not {expected}; there is: {}",
            self.alike(selector)
        );
        Ok(())
    }

    /// Fails unless the patch is loaded and not in transition, and no series contradicts that.
    pub(crate) fn expect_at_rest(&self, patch: &str) -> Result<()> {
        self.expect_sum(&format!("livepatch_patch_info{{patch={patch}}}"), 1.0)?;
        self.expect_sum(
            &format!("livepatch_transition_active{{patch={patch}}}"),
            0.0,
        )?;
        for absent in [
            "livepatch_pending_tasks",
            "livepatch_stuck_tasks",
            "livepatch_blocking_tasks",
            "livepatch_transition_start_timestamp_seconds",
        ] {
            self.expect_absent(&format!("{absent}{{patch={patch}}}"))?;
        }
        Ok(())
    }

    /// Fails if there is a series about a livepatch.
    pub(crate) fn expect_none_loaded(&self) -> Result<()> {
        for absent in [
            "livepatch_patch_info",
            "livepatch_patch_enabled",
            "livepatch_transition_active",
            "livepatch_transition_start_timestamp_seconds",
            "livepatch_pending_tasks",
            "livepatch_stuck_tasks",
            "livepatch_blocking_tasks",
            "livepatch_patching_complete_timestamp_seconds",
        ] {
            self.expect_absent(absent)?;
        }
        Ok(())
    }

    /// Fails if the scrape contradicts itself, which it must not at any moment, whatever a scenario
    /// waits for.
    pub(crate) fn expect_consistent(&self) -> Result<()> {
        let sum =
            |selector: &str| Ok::<_, anyhow::Error>(self.sum_of_any(selector)?.unwrap_or(0.0));
        let running = sum("livepatch_transition_active")?;
        ensure!(running <= 1.0, "{running} transitions run at once");
        for patch in self.label_values("livepatch_pending_tasks", "patch")? {
            let of = |name: &str| sum(&format!("{name}{{patch={patch}}}"));
            let pending = of("livepatch_pending_tasks")?;
            let stuck = of("livepatch_stuck_tasks")?;
            let blocking = of("livepatch_blocking_tasks")?;
            let active = of("livepatch_transition_active")?;
            ensure!(
                stuck <= pending && blocking <= pending && (pending < 1.0 || active >= 1.0),
                "{patch}: {pending} tasks pending, {stuck} stuck, {blocking} in a replaced \
                 function, {active} transitions"
            );
        }
        expect_no_address(&self.text)
    }

    /// Fails if a counter is lower than in an earlier scrape of the same process.
    pub(crate) fn expect_later_than(&self, earlier: &Self) -> Result<()> {
        for (series, before) in &earlier.samples {
            if series.name.ends_with("_total") {
                let now = self.samples.get(series);
                // A series that has counted nothing may disappear with its patch.
                ensure!(
                    now.map_or(*before <= 0.0, |now| now >= before),
                    "the counter {series} was {before} and is {now:?}"
                );
            }
        }
        Ok(())
    }

    /// Fails if a series matches.
    pub(crate) fn expect_absent(&self, selector: &str) -> Result<()> {
        let wanted = Series::from_selector(selector)?;
        match self
            .samples
            .iter()
            .find(|(series, _)| series.matches(&wanted))
        {
            None => Ok(()),
            Some((series, value)) => bail!("{series} is {value}, it should not be there"),
        }
    }

    /// Fails if there are more series than this, not counting those of the process.
    pub(crate) fn expect_series_at_most(&self, most: usize) -> Result<()> {
        let series = self
            .samples
            .keys()
            .filter(|series| !series.name.starts_with("process_"));
        let count = series.count();
        ensure!(
            count <= most,
            "{count} series, and at most {most} are allowed"
        );
        Ok(())
    }

    /// The values of a label over all series that match.
    pub(crate) fn label_values(&self, selector: &str, label: &str) -> Result<Vec<&str>> {
        let selector = Series::from_selector(selector)?;
        Ok(self
            .samples
            .keys()
            .filter(|series| series.matches(&selector))
            .filter_map(|series| series.labels.get(label).map(String::as_str))
            .collect())
    }

    /// The text with everything that differs between runs, builds and kernels replaced by `~` and
    /// NaN, and the series of each metric in order: the rest must be the same everywhere.
    pub(crate) fn masked(&self) -> String {
        let mut masked = String::new();
        let mut family = Vec::new();
        let same = |line: &&str| !KERNELS_DIFFER.iter().any(|name| line.contains(name));
        for line in self.text.lines().filter(same) {
            if line.starts_with('#') {
                flush(&mut masked, &mut family);
                masked.push_str(line);
                masked.push('\n');
            } else {
                family.push(mask_line(line));
            }
        }
        flush(&mut masked, &mut family);
        masked
    }

    fn alike(&self, selector: &str) -> String {
        let name = selector.split('{').next().unwrap_or_default();
        let alike: Vec<_> = self
            .samples
            .iter()
            .filter(|(series, _)| series.name == name)
            .map(|(series, value)| format!("{series} {value}"))
            .collect();
        match alike.is_empty() {
            true => format!("nothing called {name}"),
            false => alike.join("; "),
        }
    }
}

/// Fails if a text has an address of the kernel, which on x86-64 is in the upper half. Nobody who
/// may see metrics and page may see one.
pub(crate) fn expect_no_address(text: &str) -> Result<()> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let mut digits = words.map(|word| word.strip_prefix("0x").unwrap_or(word));
    let is_address = |word: &&str| {
        // Not only digits, because a fraction may have as many.
        word.len() == 16 && word.starts_with("ff") && u64::from_str_radix(word, 16).is_ok()
    };
    match digits.find(is_address) {
        Some(address) => bail!("{address} looks like an address of the kernel"),
        None => Ok(()),
    }
}

/// The series that counts transitions with this outcome.
pub(crate) fn ended(direction: &str, outcome: &str) -> String {
    format!("livepatch_transitions_total{{direction={direction},outcome={outcome}}}")
}

/// Metrics whose series depend on the kernel's version.
const KERNELS_DIFFER: &[&str] = &["livepatch_crash_signals_missed"];

/// Labels whose values depend on the build or the kernel.
const MASKED_LABELS: &[&str] = &[
    "srcversion",
    "build_id",
    "version",
    "revision",
    "release",
    "method",
    "replace",
];

/// Prefixes of the names whose values are times, sizes, or counts that depend on how fast the
/// machine is.
const MASKED_VALUES: &[&str] = &[
    "livepatch_transition_start_timestamp_seconds",
    "livepatch_transition_attempts_total",
    "livepatch_transition_signals_total",
    "livepatch_host_time_seconds",
    "livepatch_monitor_events_total",
    "livepatch_monitor_sandboxed",
    "process_",
];

/// Writes the series of a complete metric, in order.
fn flush(text: &mut String, family: &mut Vec<String>) {
    family.sort_by_cached_key(|line| parse_sample(line).ok().map(|(series, _)| series.labels));
    for line in family.drain(..) {
        text.push_str(&line);
        text.push('\n');
    }
}

fn mask_line(line: &str) -> String {
    let Ok((series, _)) = parse_sample(line) else {
        return line.to_owned();
    };
    let mut masked = line.to_owned();
    for (label, value) in &series.labels {
        if MASKED_LABELS.contains(&label.as_str()) {
            masked = masked.replace(&format!("{label}=\"{value}\""), &format!("{label}=\"~\""));
        }
    }
    let varies = MASKED_VALUES
        .iter()
        .any(|prefix| series.name.starts_with(prefix));
    if varies && let Some((head, _)) = masked.rsplit_once(' ') {
        masked = format!("{head} NaN");
    }
    masked
}

fn parse_sample(line: &str) -> Result<(Series, f64)> {
    let end = line
        .find(['{', ' '])
        .context("neither a label nor a value")?;
    let (name, rest) = line.split_at(end);
    ensure!(
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'),
        "`{name}` is not a metric name"
    );
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ').context("no value")?;
    let series = Series {
        name: name.to_owned(),
        labels,
    };
    Ok((series, parse_value(value)?))
}

fn parse_value(value: &str) -> Result<f64> {
    match value {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        _ => value
            .parse()
            .with_context(|| format!("`{value}` is not a value")),
    }
}

/// The labels after the opening brace, and what follows the closing one.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (label, after) = rest.split_once("=\"").context("a label without a value")?;
        let (value, after) = parse_quoted(after)?;
        if labels.insert(label.to_owned(), value).is_some() {
            bail!("the label {label} is there twice");
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

fn parse_quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => bail!("a backslash before {other:?}"),
            },
            other => value.push(other),
        }
    }
    bail!("a label's value without an end")
}

#[cfg(test)]
mod tests;
