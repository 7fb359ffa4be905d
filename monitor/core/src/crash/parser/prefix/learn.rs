//! Learns a file's line prefix from samples: a prefix that could be somebody's text is stripped
//! only if the file has it repeatedly.

use std::collections::HashMap;

use super::{
    super::date::Kind,
    clean,
    marks::mark,
    peel::{Origin, Peeled, extended, is_name, peel},
    profile::{Common, MAX_HOSTS, Profile, Shape, Token},
    stamp::stamp,
    suffix::Suffix,
    vendor,
};

/// Places of a long file that are sampled, and lines at each.
const PLACES: usize = 16;
const LINES: usize = 512;
/// Most different prefixes that are counted.
const MAX_SHAPES: usize = 1024;

pub(super) fn profile(bytes: &[u8]) -> Profile {
    let mut profile = Profile {
        html: is_html(bytes),
        ..Profile::default()
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

impl Profile {
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

    /// Learns whether the word after each date is a host's name.
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
        // If the kernel's texts start lines, what precedes others belongs to those.
        let bare = unknown
            .iter()
            .any(|text| mark(text.trim_start()) == Some(0));
        let mut counts: HashMap<Shape, usize> = HashMap::new();
        for text in &unknown {
            let marked = || mark(text).filter(|_| !bare);
            let at = stamp(text).or_else(marked).filter(|at| *at > 0);
            let before = at.and_then(|at| text.get(..at));
            // A prefix before kernel text ends in something that is not a word.
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
        self.common = Common::of(samples, &peeled);
        // Tools indent what continues a message.
        let begin = samples.iter().zip(&peeled);
        let begin = begin.filter(|(line, _)| !line.starts_with([' ', '\t']));
        self.reversed = is_reversed(begin.map(|(_, peeled)| peeled));
        let vendors = timed
            .clone()
            .filter(|peeled| vendor::behind(peeled.text).is_some());
        let (stamped, vendors) = (timed.count(), vendors.count());
        self.timed = stamped > 0;
        self.vendor = vendors >= 5 && vendors * 10 >= stamped * 7;
        let dated = mine.filter(|peeled| peeled.uptime.is_some() || peeled.date.is_some());
        let dated = dated.count();
        self.stamped = dated >= 20 && dated * 100 >= all * 95;
        // Mail programs wrap at 72 to 80 columns; pasted logs have some longer lines.
        let longest = samples.iter().map(|line| line.chars().count()).max();
        let plain = peeled.iter().all(|peeled| peeled.date.is_none());
        self.wrapped = plain && stamped * 2 > all && stamped < all && longest <= Some(120);
    }
}

/// Whether the times of nearly all lines are earlier than those of the lines before.
fn is_reversed<'a>(lines: impl Iterator<Item = &'a Peeled<'a>>) -> bool {
    let time = |line: &Peeled<'_>| {
        line.uptime.or(line
            .date
            .filter(|date| date.kind != Kind::Delta)
            .map(|date| date.seconds))
    };
    let times: Vec<f64> = lines.filter_map(time).collect();
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

/// Lines of the whole file, or from places all over it.
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

/// `NAME=value`, as the journal writes its fields.
fn is_field(line: &str) -> bool {
    let name = line.split_once('=').map_or("", |(name, _)| name);
    let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.bytes().all(upper)
}

impl Common {
    fn of(samples: &[String], peeled: &[Peeled<'_>]) -> Self {
        let mine = || {
            let both = samples.iter().zip(peeled);
            both.filter(|(_, peeled)| peeled.origin != Origin::Other)
        };
        let among = |part: usize, has: &dyn Fn(&str, &Peeled<'_>) -> bool| {
            let of_them = mine().filter(|(line, peeled)| has(line, peeled)).count();
            of_them > 0 && of_them * part >= mine().count()
        };
        let of_all = |has: &dyn Fn(&str) -> bool| {
            let of_them = samples.iter().filter(|line| has(line.trim())).count();
            of_them > 0 && of_them * 4 >= samples.len()
        };
        let date = among(4, &|_, peeled| peeled.date.is_some());
        // Behind dates it may be part of a name, unless most lines have it.
        let uptime = among(if date { 2 } else { 8 }, &|line, peeled| {
            peeled.uptime.is_some() || stamp(line).is_some()
        });
        Self {
            uptime,
            date,
            tag: among(4, &|_, peeled| peeled.tagged),
            kmsg: among(4, &|line, _| extended(line.trim_start()).is_some()),
            indent: {
                let has_time = |(line, peeled): &(&String, &Peeled<'_>)| {
                    peeled.uptime.is_some() || peeled.date.is_some() || stamp(line).is_some()
                };
                let indented = |(line, _): &(&String, _)| line.starts_with([' ', '\t']);
                let with_time = || mine().filter(has_time);
                let all = with_time().count();
                all > 0 && with_time().filter(indented).count() == all
            },
            caller: uptime
                && mine()
                    .filter(|(_, peeled)| peeled.uptime.is_some())
                    .all(|(_, peeled)| peeled.caller.is_some()),
            json: of_all(&|line| {
                let numbers = line.trim_end_matches(',');
                let number = !numbers.is_empty() && numbers.bytes().all(|b| b.is_ascii_digit());
                let object = line.find('{').is_some_and(|at| at < 64) && line.ends_with(['}', ',']);
                line.starts_with(['{', '}', '"', ']'])
                    || line == "["
                    || line == "[{"
                    || object
                    || number
            }),
            // A journal's export and `verbose` begin with a record.
            fields: samples
                .first()
                .is_some_and(|line| is_field(line) || line.contains("[s="))
                && of_all(&is_field),
        }
    }
}
