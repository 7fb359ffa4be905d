//! Matches a line with the format string of a kernel message. A report starts only where the
//! kernel's own fixed text starts one, so a format is anchored at the line's start; what follows
//! its end is ignored, because consoles append the next line to it.
//!
//! `{cpu}`, `{pid}` and `{n}` are decimal, `{x}` hexadecimal; `{place}` is a function
//! (`name+0x1/0x2 [module]`), `{symbol}` one without offset and size; `{bug}` is a sanitizer's name
//! of an error, in lower case; `{comm}` is a task's name, which may contain anything, so it is
//! matched as long as possible; `{}` is any other text, matched as short as possible.

use super::{
    super::record::Function,
    symbol::{self, MAX_NAME, cut},
};

/// Values of a line's variable parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cpu: Option<u32>,
    pub(super) comm: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) place: Option<Function>,
}

/// Longest task name: `TASK_COMM_LEN` is 16, kernel threads' names are shown with that
/// of their work queue (`wq_worker_comm`, 64).
const MAX_COMM: usize = 64;
/// Longest text that a `{}` of a format matches.
const MAX_ANY: usize = 512;

pub(super) fn matches(format: &str, text: &str) -> Option<Found> {
    let mut found = Found::default();
    fits(format, text, &mut found).then_some(found)
}

fn fits(format: &str, text: &str, found: &mut Found) -> bool {
    let (literal, rest) = format.split_once('{').unwrap_or((format, ""));
    let Some(text) = text.strip_prefix(literal) else {
        return false;
    };
    let Some((name, rest)) = rest.split_once('}') else {
        return true;
    };
    match name {
        "cpu" | "pid" | "n" => {
            let (digits, behind) = leading(text, |byte| byte.is_ascii_digit());
            let Ok(number) = digits.parse() else {
                return false;
            };
            match name {
                "cpu" => found.cpu = Some(number),
                "pid" => found.pid = Some(number),
                _ => {}
            }
            fits(rest, behind, found)
        }
        "x" => {
            let text = text.strip_prefix("0x").unwrap_or(text);
            let (digits, behind) = leading(text, |byte| byte.is_ascii_hexdigit());
            !digits.is_empty() && fits(rest, behind, found)
        }
        "place" => {
            let Some((function, behind)) = symbol::leading_function(text) else {
                return false;
            };
            found.place = Some(function);
            fits(rest, behind, found)
        }
        "symbol" => {
            let Some((function, behind)) = symbol::leading_symbol(text) else {
                return false;
            };
            found.place = Some(function);
            fits(rest, behind, found)
        }
        "bug" => {
            let small = |byte: u8| byte.is_ascii_lowercase() || b" -/".contains(&byte);
            let (next, _) = rest.split_once('{').unwrap_or((rest, ""));
            let (words, _) = leading(text, small);
            let end = words.find(next).filter(|end| *end > 0);
            let behind = end.and_then(|end| text.get(end..));
            behind.is_some_and(|behind| fits(rest, behind, found))
        }
        _ => {
            let (next, _) = rest.split_once('{').unwrap_or((rest, ""));
            let is_comm = name == "comm";
            let end = (0..=text.len().min(if is_comm { MAX_COMM } else { MAX_ANY }))
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(0);
            let mut try_at = |at: usize| {
                let (Some(inside), Some(behind)) = (text.get(..at), text.get(at..)) else {
                    return false;
                };
                if !behind.starts_with(next) || !fits(rest, behind, found) {
                    return false;
                }
                if is_comm {
                    found.comm = Some(cut(inside, MAX_NAME));
                }
                true
            };
            match is_comm {
                true => (0..=end).rev().any(&mut try_at),
                false => (0..=end).any(&mut try_at),
            }
        }
    }
}

/// Whether a text matches the start of the format, but ends before it.
pub(super) fn goes_on(mut format: &str, mut text: &str) -> bool {
    loop {
        let (literal, rest) = format.split_once('{').unwrap_or((format, ""));
        let Some(behind) = text.strip_prefix(literal) else {
            return literal.starts_with(text);
        };
        let Some((name, rest)) = rest.split_once('}') else {
            return false;
        };
        let (digits, behind) = leading(behind, |byte| byte.is_ascii_digit());
        if behind.is_empty() {
            return true;
        }
        if digits.is_empty() || !["cpu", "pid", "n"].contains(&name) {
            return false;
        }
        (format, text) = (rest, behind);
    }
}

fn leading(text: &str, is: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !is(byte));
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_parts() {
        let found = matches(
            "BUG: soft lockup - CPU#{cpu} stuck for {n}s! [{comm}:{pid}]",
            "BUG: soft lockup - CPU#1 stuck for 22s! [a]:b:7]:144]Modules linked in:",
        )
        .unwrap();
        assert_eq!((found.cpu, found.pid), (Some(1), Some(144)));
        assert_eq!(found.comm.as_deref(), Some("a]:b:7]"));

        let found = matches("in {place}, CPU#{cpu}", "in f.isra.0+0x1/0x2 [m], CPU#3").unwrap();
        assert_eq!(found.place.unwrap().to_string(), "f.isra.0+0x1/0x2 [m]");
        assert_eq!(found.cpu, Some(3));

        assert!(matches("at {}:{n}!", "at a:b:12!").is_some());
        assert!(matches("code {x} at", "code 0xbe at").is_some());
    }

    #[test]
    fn a_text_that_ends_too_early() {
        let format = "soft lockup - CPU#{cpu} stuck for ";
        for text in [
            "soft lock",
            "soft lockup - CPU#1",
            "soft lockup - CPU#1 stuck",
        ] {
            assert!(goes_on(format, text), "{text}");
        }
        for text in [
            "soft lockup - CPU#1 stuck for 2",
            "soft lockup - CPU#x",
            "hard",
        ] {
            assert!(!goes_on(format, text), "{text}");
        }
    }

    #[test]
    fn only_at_the_start_and_whole() {
        for text in ["x BUG: Bad", "BUG: Ba", "bug: Bad", ""] {
            assert_eq!(matches("BUG: Bad", text), None, "{text}");
        }
        assert_eq!(matches("CPU#{cpu}", "CPU#x"), None);
        assert_eq!(matches("CPU#{cpu}", "CPU#99999999999"), None);
        assert_eq!(matches("{}:{n}", "é:x"), None);
    }
}
