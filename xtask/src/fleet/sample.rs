//! Parses a line of the Prometheus text format without losing a character.

/// One series and its value, exactly as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) value: &'a str,
}

impl<'a> Sample<'a> {
    /// Parses a line that is neither blank nor a comment; `None` if it is not a sample.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let end_of_name = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end_of_name);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let end = closing_quote(after)?;
                let (value, after) = after.split_at(end);
                labels.push((label, value));
                rest = after.strip_prefix('"')?;
                rest = match rest.strip_prefix(',') {
                    Some(next) => next,
                    None if rest.starts_with('}') => rest,
                    None => return None,
                };
            }
            rest = rest.strip_prefix('}')?;
        }
        let value = rest.trim();
        let is_number = value.parse::<f64>().is_ok();
        (valid_name(name) && labels.iter().all(|(label, _)| valid_name(label)) && is_number)
            .then_some(Self {
                name,
                labels,
                value,
            })
    }

    /// A label's value as written, with its escapes.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        self.labels
            .iter()
            .find(|(label, _)| *label == name)
            .map(|(_, value)| *value)
    }

    /// The value as a number.
    pub(super) fn number(&self) -> f64 {
        // `parse` has checked that it is a number.
        self.value.parse().unwrap_or(f64::NAN)
    }

    /// Whether the series has these labels.
    pub(super) fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.label(name) == Some(*value))
    }
}

fn valid_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_' || first == ':')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// The end of a quoted value; a backslash escapes the next character.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// A label's value with escapes.
pub(super) fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let sample = Sample::parse("a_total{b=\"c\",d=\"e} \\\" f\"} 1.5").unwrap();
        assert_eq!(sample.name, "a_total");
        assert_eq!(sample.label("b"), Some("c"));
        assert_eq!(sample.label("d"), Some("e} \\\" f"));
        assert_eq!(sample.number().to_bits(), 1.5_f64.to_bits());
        assert_eq!(Sample::parse("up 1").unwrap().labels, []);
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for line in [
            "",
            "up",
            "up x",
            "{a=\"b\"} 1",
            "up{a=\"b} 1",
            "up{a=b} 1",
            "up{a=\"b\"c=\"d\"} 1",
            "1up 1",
        ] {
            assert_eq!(Sample::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,80}") {
            let _ = Sample::parse(&line);
        }

        #[test]
        fn what_is_written_is_read_back(
            name in "[a-z_][a-z0-9_]{0,12}",
            labels in proptest::collection::vec(("[a-z_]{1,8}", "\\PC{0,12}"), 0..5),
            value in any::<i32>(),
        ) {
            let written: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let line = format!("{name}{{{}}} {value}", written.join(","));
            let sample = Sample::parse(&line).unwrap();
            prop_assert_eq!(sample.name, name);
            prop_assert_eq!(sample.number(), f64::from(value));
            let read: Vec<String> = sample
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{value}\""))
                .collect();
            prop_assert_eq!(read, written);
        }
    }
}
