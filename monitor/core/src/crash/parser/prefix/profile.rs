//! What a file has before its lines, learned from samples of the whole file: a
//! beginning that could be somebody's text is taken off only where the file has it
//! again and again.

use std::collections::{HashMap, HashSet};

use super::{
    clean,
    date::Kind,
    peel::{Origin, Peeled, bracket, is_name, peel, uptime},
    suffix::Suffix,
    vendor,
};

/// Places of a long file that are looked at, and lines at each.
const PLACES: usize = 16;
const LINES: usize = 512;
/// Different beginnings that are counted.
const MAX_SHAPES: usize = 1024;
/// Hosts that are remembered; of more, each is taken for one.
const MAX_HOSTS: usize = 256;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// Hosts whose lines bear syslog's tag `kernel:`; none is a tag without a host.
    tagged_hosts: HashSet<Option<String>>,
    /// They do so behind a time of the kernel's clock (`short-monotonic`).
    pub(super) monotonic_tags: bool,
    /// And behind this host's name.
    pub(super) monotonic_host: Option<String>,
    /// The kernel's lines bear its facility.
    pub(super) kernel_facility: bool,
    /// The word that stands behind each date.
    pub(super) host: Option<String>,
    /// A beginning of a form of its own.
    pub(super) learned: Option<Shape>,
    /// It stands before times of the kernel's clock.
    pub(super) learned_timed: bool,
    /// Entities of HTML.
    pub(super) html: bool,
    /// What stands behind the lines.
    pub(super) suffix: Option<Suffix>,
    /// Newest first (`journalctl --reverse`).
    pub(super) reversed: bool,
    /// What syslogd writes to all terminals: ` kernel:TEXT`.
    pub(super) broadcast: bool,
    /// A vendor's kernel shows the CPU and the task behind the time.
    pub(super) vendor: bool,
    /// Nearly all lines bear the kernel's time, or a date.
    pub(super) stamped: bool,
    /// No line is longer than a mail's, and some have no time of their own.
    pub(super) wrapped: bool,
}

/// The form of a beginning: its words and numbers stand for any, the rest for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Word,
    Spaces,
    Other(char),
}

impl Shape {
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut tokens: Vec<Token> = Vec::new();
        for next in text.chars() {
            let token = match next {
                _ if next.is_alphanumeric() => Token::Word,
                ' ' | '\t' => Token::Spaces,
                _ => Token::Other(next),
            };
            let repeats = !matches!(token, Token::Other(_)) && tokens.last() == Some(&token);
            if !repeats {
                tokens.push(token);
            }
        }
        (tokens.len() <= 64).then_some(Self(tokens))
    }

    /// The text behind a beginning of this form.
    pub(super) fn strip<'a>(&self, text: &'a str) -> Option<&'a str> {
        let mut rest = text;
        for token in &self.0 {
            let behind = match token {
                Token::Word => rest.trim_start_matches(char::is_alphanumeric),
                Token::Spaces => rest.trim_start_matches([' ', '\t']),
                Token::Other(character) => rest.strip_prefix(*character)?,
            };
            (behind.len() < rest.len()).then_some(())?;
            rest = behind;
        }
        Some(rest)
    }
}

/// Fixed texts of the kernel that do not occur elsewhere.
pub(super) const MARKS: [&str; 14] = [
    "Kernel panic - not syncing",
    "BUG: kernel NULL pointer",
    "BUG: unable to handle",
    "BUG: soft lockup - CPU#",
    "Unable to handle kernel",
    "kernel BUG at ",
    "---[ end trace",
    "------------[ cut here",
    "Modules linked in:",
    "Call Trace:",
    "RIP: 0010:",
    "Linux version ",
    "Oops: ",
    "livepatch: ",
];

/// Where the kernel's text starts in a line whose beginning is not understood.
pub(super) fn mark(text: &str) -> Option<usize> {
    MARKS.iter().filter_map(|mark| text.find(mark)).min()
}

/// Where a time of the kernel's clock stands in a line.
pub(super) fn stamp(text: &str) -> Option<usize> {
    let mut places = text.match_indices('[').map(|(at, _)| at);
    places.find(|at| {
        let inner = text.get(*at..).and_then(bracket);
        inner.is_some_and(|(inner, _)| {
            // The kernel prints microseconds.
            let exact = inner
                .split_once('.')
                .is_some_and(|(_, part)| part.len() >= 6);
            exact && uptime(inner).is_some()
        })
    })
}

impl Profile {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut profile = Self {
            html: is_html(bytes),
            ..Self::default()
        };
        let samples: Vec<_> = samples(bytes)
            .map(|line| clean::line(line, profile.html).into_owned())
            .filter(|line| !line.trim().is_empty())
            .collect();
        profile.suffix = Suffix::of(&samples);
        let broadcasts = |line: &String| line.starts_with("Message from syslogd@");
        profile.broadcast = samples.iter().any(broadcasts);
        profile.tags(&samples);
        profile.hosts(&samples);
        profile.learn(&samples);
        profile.stamps(&samples);
        profile
    }

    /// Whether a tag behind this host is a program's name, and not the kernel's text.
    pub(super) fn tags_others(&self, host: Option<&str>) -> bool {
        let host = host.map(str::to_owned);
        self.tagged_hosts.contains(&host) || host.is_some() && self.tagged_hosts.len() > MAX_HOSTS
    }

    fn tags(&mut self, samples: &[String]) {
        let monotonic = Self {
            monotonic_tags: true,
            ..self.clone()
        };
        for line in samples {
            let peeled = peel(line, &monotonic);
            if peeled.tagged && self.tagged_hosts.len() <= MAX_HOSTS {
                self.tagged_hosts.insert(peeled.host.map(str::to_owned));
            }
            if peeled.tagged && is_monotonic(&peeled) {
                self.monotonic_tags = true;
                self.monotonic_host = peeled.host.map(str::to_owned);
            }
            self.kernel_facility |= peeled.tagged && peeled.facility == Some(0);
        }
    }

    /// A word behind each date is a host's name.
    fn hosts(&mut self, samples: &[String]) {
        let dated: Vec<Peeled<'_>> = samples
            .iter()
            .map(|line| peel(line, self))
            .filter(|peeled| peeled.date.is_some() && peeled.host.is_none())
            .collect();
        let words = dated
            .iter()
            .map(|peeled| peeled.text.split_once(' ').map(|(word, _)| word));
        let mut words: Vec<Option<&str>> = words.collect();
        words.dedup();
        if let [Some(word)] = words.as_slice()
            && dated.len() >= 3
            && is_name(word)
        {
            self.host = Some((*word).to_owned());
        }
    }

    fn learn(&mut self, samples: &[String]) {
        let unknown: Vec<&str> = samples
            .iter()
            .map(|line| peel(line, self))
            .filter(|peeled| {
                let timed = !peeled.tagged && stamp(peeled.text).is_some_and(|at| at > 0);
                let kernels = peeled.origin == Origin::Kernel && timed;
                peeled.uptime.is_none() && (peeled.origin == Origin::Unsaid || kernels)
            })
            .map(|peeled| peeled.text)
            .collect();
        // Where the kernel's texts start lines, what stands before others is theirs.
        let bare = unknown
            .iter()
            .any(|text| mark(text.trim_start()) == Some(0));
        let mut counts: HashMap<Shape, usize> = HashMap::new();
        for text in &unknown {
            let marked = || mark(text).filter(|_| !bare);
            let at = stamp(text).or_else(marked).filter(|at| *at > 0);
            let before = at.and_then(|at| text.get(..at));
            // A text before a mark ends in something that is not a word.
            if let Some(shape) = before.and_then(Shape::of)
                && shape.0.last() != Some(&Token::Word)
                && shape.0.iter().any(|token| *token != Token::Spaces)
                && (counts.len() < MAX_SHAPES || counts.contains_key(&shape))
            {
                *counts.entry(shape).or_default() += 1;
            }
        }
        let often = counts.into_iter().filter(|(_, count)| *count >= 2);
        let consistent = often.filter_map(|(shape, _)| {
            let fits = unknown
                .iter()
                .filter(|text| shape.strip(text).is_some())
                .count();
            (fits * 10 >= unknown.len() * 7).then_some((shape, fits))
        });
        let best = consistent.max_by_key(|(shape, fits)| (*fits, std::cmp::Reverse(shape.0.len())));
        self.learned = best.map(|(shape, _)| shape);
        self.learned_timed = unknown.iter().any(|text| stamp(text).is_some());
    }

    fn stamps(&mut self, samples: &[String]) {
        let peeled: Vec<_> = samples.iter().map(|line| peel(line, self)).collect();
        let mine = peeled
            .iter()
            .filter(|peeled| peeled.origin != Origin::Other);
        let all = mine.clone().count();
        let timed = mine.clone().filter(|peeled| peeled.uptime.is_some());
        self.reversed = is_reversed(&peeled);
        let vendors = timed
            .clone()
            .filter(|peeled| vendor::behind(peeled.text).is_some());
        let (stamped, vendors) = (timed.count(), vendors.count());
        self.vendor = vendors >= 5 && vendors * 10 >= stamped * 7;
        let dated = mine.filter(|peeled| peeled.uptime.is_some() || peeled.date.is_some());
        let dated = dated.count();
        self.stamped = dated >= 20 && dated * 100 >= all * 95;
        // Mail programs wrap at 72 to 80 columns; pasted logs keep some longer ones.
        let longest = samples.iter().map(|line| line.chars().count()).max();
        let plain = peeled.iter().all(|peeled| peeled.date.is_none());
        self.wrapped = plain && stamped * 2 > all && stamped < all && longest <= Some(120);
    }
}

/// Whether the times of nearly all lines are earlier than those of the lines before.
fn is_reversed(lines: &[Peeled<'_>]) -> bool {
    let time = |line: &Peeled<'_>| {
        line.uptime.or(line
            .date
            .filter(|date| date.kind != Kind::Delta)
            .map(|date| date.seconds))
    };
    let times: Vec<f64> = lines.iter().filter_map(time).collect();
    let steps = times.windows(2).filter_map(|pair| {
        let step = pair.get(1)? - pair.first()?;
        (step != 0.0).then_some(step < 0.0)
    });
    let (back, all) = steps.fold((0, 0), |(back, all), is_back| {
        (back + usize::from(is_back), all + 1)
    });
    back >= 3 && back * 10 >= all * 9
}

fn is_monotonic(peeled: &Peeled<'_>) -> bool {
    peeled.uptime.is_some() && peeled.date.is_none() && peeled.host.is_some()
}

fn is_html(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let Some(_) = bytes.iter().find(|byte| **byte == b'&') else {
        return false;
    };
    [
        &b"&lt;"[..],
        b"&gt;",
        b"&#x27;",
        b"&#39;",
        b"&quot;",
        b"&nbsp;",
        b"&amp;",
    ]
    .into_iter()
    .any(has)
}

/// Lines of the whole file, or of places all over it.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let places = if bytes.len() <= 1 << 20 { 1 } else { PLACES };
    let lines = if places == 1 { 1 << 16 } else { LINES };
    (0..places).flat_map(move |place| {
        let from = bytes.len() / places * place;
        let rest = bytes.get(from..).unwrap_or_default();
        rest.split(|byte| matches!(byte, b'\n' | b'\r'))
            .skip(usize::from(place > 0))
            .take(lines)
    })
}
