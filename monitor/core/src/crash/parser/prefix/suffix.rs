//! Suffixes that a tool appended to every line: the end of a quoted field (`"},`, `'}`), further
//! columns, a tag, `#012` for the line's end. They are stripped only if nearly all lines have them.

use super::{marks::mark, stamp::stamp};

/// Fewest lines that must agree.
const FEWEST: usize = 5;
/// Pairs of lines whose common end is tried.
const PAIRS: usize = 16;
const LONGEST: usize = 128;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Suffix {
    text: String,
    /// The quote that is doubled or escaped with a backslash inside the field.
    quote: Option<char>,
}

impl Suffix {
    pub(super) fn of(lines: &[String]) -> Option<Self> {
        let is_kernels = |line: &&String| {
            let place = stamp(line).or_else(|| mark(line));
            place.is_some_and(|at| at > 0) || line.ends_with("#012")
        };
        let lines: Vec<&str> = lines
            .iter()
            .filter(is_kernels)
            .map(|line| line.trim_end())
            .collect();
        let pairs = lines.windows(2).take(PAIRS);
        let best = pairs
            .filter_map(|pair| common_end(pair.first()?, pair.get(1)?))
            .filter_map(start)
            .map(|end| (lines.iter().filter(|line| line.ends_with(end)).count(), end))
            .max_by_key(|(count, end)| (*count, end.len()));
        let (count, end) = best?;
        (count >= FEWEST && count * 20 >= lines.len() * 19).then(|| Self {
            text: end.to_owned(),
            quote: end.chars().find(|next| matches!(next, '"' | '\'')),
        })
    }

    /// Strips the suffix from a line.
    pub(super) fn strip(&self, line: &str) -> Option<String> {
        let line = line.trim_end().strip_suffix(self.text.as_str())?;
        Some(match self.quote {
            Some('"') => line
                .replace("\"\"", "\"")
                .replace("\\\"", "\"")
                .replace("\\u003c", "<")
                .replace("\\u003e", ">")
                .replace("\\\\", "\\"),
            Some(_) => line.replace("''", "'"),
            None => line.to_owned(),
        })
    }
}

fn common_end<'a>(one: &'a str, two: &str) -> Option<&'a str> {
    let same = one.chars().rev().zip(two.chars().rev());
    let same = same.take(LONGEST).take_while(|(one, two)| one == two);
    let length: usize = same.map(|(next, _)| next.len_utf8()).sum();
    one.get(one.len() - length..)
}

/// The part from the end of a field or a line on.
fn start(end: &str) -> Option<&str> {
    let at = ["\\r", "\\n", "\"", "'", "#01", " |", "</"]
        .iter()
        .filter_map(|start| end.find(start))
        .min()?;
    end.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Suffix> {
        let texts = [
            "usb 1-1: a",
            "BUG: b",
            "Oops: 0000 [#1]",
            "Call Trace:",
            "\"d\"",
            "x",
        ];
        let lines: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| line.replace("TEXT", &format!("[    1.00000{at}] {text}")))
            .collect();
        Suffix::of(&lines)
    }

    #[test]
    fn of_quoted_fields() {
        for (line, end) in [
            ("  \"message\": \"TEXT\",", "\","),
            ("msg: 'TEXT'}", "'}"),
            (
                "\"a\",\"TEXT\",\"host\",\"/var/log/messages\"",
                "\",\"host\",\"/var/log/messages\"",
            ),
            ("Nov 23 12:00:00 h kernel: TEXT#012", "#012"),
            ("| 12:00:00 | TEXT |", " |"),
            ("<entry>TEXT</entry>", "</entry>"),
            ("\"TEXT\\r\\n\",", "\\r\\n\","),
        ] {
            assert_eq!(of(line).unwrap().text, end, "{line}");
        }
        for line in ["TEXT", "> TEXT", "h kernel: TEXT"] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_quoted_is_read() {
        let suffix = of("msg: 'TEXT'}").unwrap();
        let line = "msg: '[    1.000000] livepatch: ''a'': patching complete'}";
        let plain = "msg: '[    1.000000] livepatch: 'a': patching complete";
        assert_eq!(suffix.strip(line).as_deref(), Some(plain));
        assert_eq!(suffix.strip("timestamp: 1"), None);
    }
}
