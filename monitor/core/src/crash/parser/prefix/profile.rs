//! What a file has before its lines, once it is learned ([`super::learn`]).

use std::collections::HashSet;

use super::suffix::Suffix;

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

impl Profile {
    /// Whether a tag behind this host is a program's name, and not the kernel's text.
    pub(super) fn tags_others(&self, host: Option<&str>) -> bool {
        let host = host.map(str::to_owned);
        self.tagged_hosts.contains(&host) || host.is_some() && self.tagged_hosts.len() > MAX_HOSTS
    }
}
