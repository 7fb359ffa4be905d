//! Label matchers from the command line. They are parsed strictly and rendered again, so
//! that nothing but matchers ever gets into a query.

use std::fmt::{self, Write as _};

use thiserror::Error;

/// A value as a string literal of PromQL.
#[must_use]
pub fn quote(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            // Prometheus takes it for broken UTF-8 and refuses the query.
            '\u{fffd}' => text.push_str("\\ufffd"),
            c if c.is_ascii_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Comparison operator of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`: the value is equal.
    Equal,
    /// `!=`: the value differs.
    NotEqual,
    /// `=~`: the whole value matches the regular expression.
    Matches,
    /// `!~`: the whole value does not match the regular expression.
    MatchesNot,
}

impl Operator {
    const ALL: [Self; 4] = [
        // Longest first: `=` is a prefix of `=~`.
        Self::Matches,
        Self::MatchesNot,
        Self::NotEqual,
        Self::Equal,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}

/// One label matcher, such as `env="prod"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Name of the label.
    pub name: String,
    /// How the label's value is compared.
    pub operator: Operator,
    /// Value or regular expression, unquoted.
    pub value: String,
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = quote(&self.value);
        write!(f, "{}{}{value}", self.name, self.operator.text())
    }
}

/// Selects hosts within the job: those that match all matchers, or all hosts if there are
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Matcher>);

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, matcher) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{matcher}")?;
        }
        Ok(())
    }
}

/// A selector is invalid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The text is not a list of label matchers.
    #[error(
        "at character {at} of the selector: expected {expected}, found {found}; \
         write label matchers such as env=\"prod\",rack!~\"r1|r2\""
    )]
    Syntax {
        /// Position of the character, from 1.
        at: usize,
        /// What was expected at that position.
        expected: &'static str,
        /// What was found instead.
        found: String,
    },
    /// A matcher is on a label that the gate matches itself.
    #[error("the selector must not match the label {name:?}: {instead}")]
    Reserved {
        /// Name of the label.
        name: String,
        /// What to use instead.
        instead: &'static str,
    },
}

/// Labels that the gate's own queries match. A second matcher on one of them would make
/// hosts disappear from some of the queries, and such a host would not be counted as
/// missing.
const RESERVED: [(&str, &str); 3] = [
    ("__name__", "the gate chooses the metrics"),
    ("job", "give the job with --job"),
    ("patch", "give the patch with --patch"),
];

impl Selector {
    /// Parses matchers `name op "value"`, separated by commas, with or without braces. Values
    /// are in double quotes with the escapes `\\`, `\"`, `\'`, `\n`, `\r`, `\t`.
    ///
    /// # Errors
    ///
    /// [`SelectorError`]: a syntax error, or a matcher on a label that the gate matches itself.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser {
            text: text.chars().collect(),
            at: 0,
        };
        let matchers = parser.selector()?;
        for matcher in &matchers {
            if let Some((_, instead)) = RESERVED.iter().find(|(name, _)| *name == matcher.name) {
                return Err(Error::Reserved {
                    name: matcher.name.clone(),
                    instead,
                });
            }
        }
        Ok(Self(matchers))
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
}

impl Parser {
    fn selector(&mut self) -> Result<Vec<Matcher>, Error> {
        let braces = self.take('{');
        let mut matchers = Vec::new();
        while !self.at_end(braces) {
            matchers.push(self.matcher()?);
            if !self.take(',') && !self.at_end(braces) {
                return Err(self.expected("a comma or the end"));
            }
        }
        if braces && !self.take('}') {
            return Err(self.expected("a closing brace"));
        }
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.expected("the end"));
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, Error> {
        let name = self.name()?;
        self.skip_space();
        let operator = Operator::ALL.into_iter().find(|operator| {
            let text = operator.text();
            self.text[self.at..]
                .iter()
                .take(text.len())
                .copied()
                .eq(text.chars())
        });
        let operator = operator.ok_or_else(|| self.expected("one of = != =~ !~"))?;
        self.at += operator.text().len();
        let value = self.value()?;
        Ok(Matcher {
            name,
            operator,
            value,
        })
    }

    fn name(&mut self) -> Result<String, Error> {
        self.skip_space();
        let fits = |(number, c): (usize, char)| {
            c == '_' || c.is_ascii_alphabetic() || (number > 0 && c.is_ascii_digit())
        };
        let rest = self.text[self.at..].iter().copied().enumerate();
        let name: String = rest
            .take_while(|&one| fits(one))
            .map(|(_, letter)| letter)
            .collect();
        if name.is_empty() {
            return Err(self.expected("a label's name (letters, digits, _)"));
        }
        self.at += name.len();
        Ok(name)
    }

    fn value(&mut self) -> Result<String, Error> {
        if !self.take('"') {
            return Err(self.expected("a value in double quotes"));
        }
        let mut value = String::new();
        loop {
            match self.peek() {
                None => return Err(self.expected("a closing double quote")),
                Some('"') => break,
                Some('\\') => {
                    self.at += 1;
                    let plain = match self.peek() {
                        Some(c @ ('\\' | '"' | '\'')) => c,
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        _ => return Err(self.expected(r#"one of \ " ' n r t after a backslash"#)),
                    };
                    value.push(plain);
                }
                Some(c) => value.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(value)
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn at_end(&mut self, braces: bool) -> bool {
        self.skip_space();
        self.peek().is_none_or(|c| braces && c == '}')
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> Error {
        Error::Syntax {
            at: self.at + 1,
            expected,
            found: self
                .peek()
                .map_or_else(|| "the end".to_owned(), |c| format!("{c:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(text: &str) -> String {
        Selector::parse(text).unwrap().to_string()
    }

    #[test]
    fn matchers_with_and_without_braces() {
        let plain = r#"env="prod",rack!~"r1|r2""#;
        assert_eq!(rendered(plain), plain);
        assert_eq!(rendered("{ env = \"prod\" ,\n rack !~ \"r1|r2\", }"), plain);
        for empty in ["", " ", "{}", "{ }"] {
            assert_eq!(Selector::parse(empty), Ok(Selector::default()));
        }
    }

    #[test]
    fn every_operator() {
        let all = r#"a="1",b!="2",c=~"3.*",d!~"4""#;
        assert_eq!(rendered(all), all);
    }

    #[test]
    fn escapes_are_undone_and_done_again() {
        let selector = Selector::parse(r#"a="\"\\\n\t\'x""#).unwrap();
        assert_eq!(selector.0[0].value, "\"\\\n\t'x");
        assert_eq!(selector.to_string(), r#"a="\"\\\n\t'x""#);
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_place() {
        let cases = [
            ("env=prod", 5, "double quotes"),
            ("env='prod'", 5, "double quotes"),
            ("env\"prod\"", 4, "one of ="),
            ("env==\"prod\"", 5, "double quotes"),
            ("env>\"prod\"", 4, "one of ="),
            ("=\"prod\"", 1, "label's name"),
            ("1a=\"prod\"", 1, "label's name"),
            (",", 1, "label's name"),
            ("a=\"1\",,b=\"2\"", 7, "label's name"),
            ("a=\"1\" b=\"2\"", 7, "comma"),
            ("a=\"1", 5, "closing double quote"),
            ("a=\"1\\", 6, "backslash"),
            ("a=\"\\d\"", 5, "backslash"),
            ("{a=\"1\"", 7, "closing brace"),
            ("a=\"1\"}", 6, "comma"),
            ("{a=\"1\"} or up", 9, "the end"),
            ("up{a=\"1\"}", 3, "one of ="),
            ("ä=\"1\"", 1, "label's name"),
        ];
        for (text, place, word) in cases {
            match Selector::parse(text) {
                Err(Error::Syntax { at, expected, .. }) => {
                    assert_eq!(at, place, "{text}");
                    assert!(expected.contains(word), "{text}: {expected}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_gates_own_labels_are_refused_with_the_remedy() {
        for name in ["job", "patch", "__name__"] {
            let error = Selector::parse(&format!("env=\"prod\",{name}!=\"\"")).unwrap_err();
            assert!(matches!(error, Error::Reserved { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    prop_compose! {
        fn matcher()(
            name in "[a-zA-Z_][a-zA-Z0-9_]{0,8}",
            operator in prop::sample::select(Operator::ALL.to_vec()),
            value in any::<String>(),
        ) -> Matcher {
            Matcher { name: format!("x{name}"), operator, value }
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in any::<String>()) {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn what_looks_like_one_is_parsed_or_refused(text in r#"[{}a=!~",\\n ]{0,24}"#) {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
            }
        }

        // The two escapes that our parser does not read (\x, \u) stand for what no
        // shell passes on; `promql` tests them.
        #[test]
        fn rendering_is_parsed_to_the_same(matchers in prop::collection::vec(matcher(), 0..4)) {
            let selector = Selector(matchers);
            let text = selector.to_string();
            prop_assume!(!text.contains("\\x") && !text.contains("\\u"));
            prop_assert_eq!(Selector::parse(&text), Ok(selector));
        }
    }
}
