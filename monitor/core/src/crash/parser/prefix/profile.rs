//! What a file has before its lines, once it is learned ([`super::learn`]).

use std::collections::HashSet;

use super::{
    peel::{Origin, Peeled, extended},
    stamp::stamp,
    suffix::Suffix,
};

/// Hosts that are remembered; of more, each is taken for one.
pub(super) const MAX_HOSTS: usize = 256;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// Hosts whose lines bear syslog's tag `kernel:`; none is a tag without a host.
    pub(super) tagged_hosts: HashSet<Option<String>>,
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
    /// Whether lines contain HTML entities, such as `&lt;`.
    pub(super) html: bool,
    /// What stands behind the lines.
    pub(super) suffix: Option<Suffix>,
    /// Newest first (`journalctl --reverse`).
    pub(super) reversed: bool,
    /// What syslogd writes to all terminals: ` kernel:TEXT`.
    pub(super) broadcast: bool,
    /// A vendor's kernel shows the CPU and the task behind the time.
    pub(super) vendor: bool,
    /// Some lines begin with the kernel's time.
    pub(super) timed: bool,
    /// What many lines have. What only a few have may be in names that users choose.
    pub(super) common: Common,
    /// Nearly all lines bear the kernel's time, or a date.
    pub(super) stamped: bool,
    /// No line is longer than a mail's, and some have no time of their own.
    pub(super) wrapped: bool,
}

/// The form of a beginning: its words and numbers stand for any, the rest for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape(pub(super) Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Token {
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

/// What at least a quarter of a log's lines have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Common {
    /// The kernel's time; an eighth, since a record may have a line for each of its fields.
    pub(super) uptime: bool,
    pub(super) date: bool,
    /// Syslog's tag.
    pub(super) tag: bool,
    /// The beginning of a record of `/dev/kmsg`.
    pub(super) kmsg: bool,
    /// White space before all else; in most lines with a time.
    pub(super) indent: bool,
    /// The form of JSON.
    pub(super) json: bool,
    /// The form of the journal's fields, `NAME=value`.
    pub(super) fields: bool,
}

impl Common {
    pub(super) fn of(samples: &[String], peeled: &[Peeled<'_>]) -> Self {
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
        Self {
            uptime: among(8, &|line, peeled| {
                peeled.uptime.is_some() || stamp(line).is_some()
            }),
            date: among(4, &|_, peeled| peeled.date.is_some()),
            tag: among(4, &|_, peeled| peeled.tagged),
            kmsg: among(4, &|line, _| extended(line.trim_start()).is_some()),
            indent: {
                let has_time = |(line, peeled): &(&String, &Peeled<'_>)| {
                    peeled.uptime.is_some() || peeled.date.is_some() || stamp(line).is_some()
                };
                let indented = |(line, _): &(&String, _)| line.starts_with([' ', '\t']);
                let with_time = || mine().filter(has_time);
                with_time().filter(indented).count() * 2 > with_time().count()
            },
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
            fields: of_all(&|line| {
                let name = line.split_once('=').map_or("", |(name, _)| name);
                let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
                !name.is_empty() && name.bytes().all(upper)
            }),
        }
    }
}

impl Profile {
    /// Whether a tag behind this host is a program's name, and not the kernel's text.
    pub(super) fn tags_others(&self, host: Option<&str>) -> bool {
        let host = host.map(str::to_owned);
        self.tagged_hosts.contains(&host) || host.is_some() && self.tagged_hosts.len() > MAX_HOSTS
    }
}
