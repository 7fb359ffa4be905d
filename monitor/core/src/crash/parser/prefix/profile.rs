//! The learned prefix and suffix of a file's lines ([`super::learn`]).

use std::collections::HashSet;

use super::suffix::Suffix;

/// Maximum number of hosts tracked; if there are more, every host counts as one of them.
pub(super) const MAX_HOSTS: usize = 256;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// Hosts whose lines have syslog's tag `kernel:`; `None` is a tag without a host.
    pub(super) tagged_hosts: HashSet<Option<String>>,
    /// Whether that tag comes after a kernel timestamp (`short-monotonic`).
    pub(super) monotonic_tags: bool,
    /// The host's name before that tag.
    pub(super) monotonic_host: Option<String>,
    /// Whether the kernel's lines have its facility.
    pub(super) kernel_facility: bool,
    /// The word after each date.
    pub(super) host: Option<String>,
    /// A custom prefix.
    pub(super) learned: Option<Shape>,
    /// Whether it comes before kernel timestamps.
    pub(super) learned_timed: bool,
    /// Whether lines contain HTML entities, such as `&lt;`.
    pub(super) html: bool,
    /// The suffix of the lines.
    pub(super) suffix: Option<Suffix>,
    /// Whether the newest line is first (`journalctl --reverse`).
    pub(super) reversed: bool,
    /// Whether syslogd's messages to all terminals are in it: ` kernel:TEXT`.
    pub(super) broadcast: bool,
    /// Whether a vendor's kernel shows the CPU and the task after the timestamp.
    pub(super) vendor: bool,
    /// Whether some lines start with a kernel timestamp.
    pub(super) timed: bool,
    /// What many lines have. What only a few have may be in names that users choose.
    pub(super) common: Common,
    /// Whether nearly all lines have a kernel timestamp or a date.
    pub(super) stamped: bool,
    /// Whether no line is longer than a mail's, and some have no timestamp.
    pub(super) wrapped: bool,
}

/// A prefix pattern: words and spaces are wildcards, everything else is literal.
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

    /// Strips a prefix of this pattern.
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
    /// The kernel's time: an eighth, since a record may have a line for each of its fields; of lines with
    /// dates, half.
    pub(super) uptime: bool,
    pub(super) date: bool,
    /// Syslog's tag.
    pub(super) tag: bool,
    /// The beginning of a record of `/dev/kmsg`.
    pub(super) kmsg: bool,
    /// White space before all else; in all lines with a time.
    pub(super) indent: bool,
    /// Who prints, behind the kernel's time: in all lines with one.
    pub(super) caller: bool,
    /// The form of JSON.
    pub(super) json: bool,
    /// The form of the journal's fields, `NAME=value`.
    pub(super) fields: bool,
}

impl Profile {
    /// Whether a tag after this host is a program's name, and not the kernel's text.
    pub(super) fn tags_others(&self, host: Option<&str>) -> bool {
        let host = host.map(str::to_owned);
        self.tagged_hosts.contains(&host) || host.is_some() && self.tagged_hosts.len() > MAX_HOSTS
    }
}
