//! Untrusted text (a thread's name, a module's) made safe to show.

use std::fmt::Write as _;

/// Makes bytes safe for a terminal: control characters, escape codes, invalid UTF-8 and characters
/// that are invisible or change the direction of text are written as escapes (`
/// `, `\x1b`, `\u{202e}`), and so is the backslash itself, so that the escapes remain unambiguous.
/// Quotes are kept.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if character.is_ascii_control() => {
                    push(&mut text, format_args!("\\x{:02x}", u32::from(character)));
                }
                _ if character.is_control() || is_unseen(character) => {
                    push(&mut text, format_args!("\\u{{{:x}}}", u32::from(character)));
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text
}

/// The same bytes for JSON, which escapes control characters itself: invalid
/// UTF-8 becomes U+FFFD.
#[must_use]
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn push(text: &mut String, escape: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(escape);
}

/// Zero-width characters, those that change the direction of text, and the line and paragraph
/// separators.
const fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_lose_their_teeth() {
        for (bytes, shown) in [
            (&b"bash"[..], "bash"),
            (b"\x1b[2J\x1b]0;root\x07", "\\x1b[2J\\x1b]0;root\\x07"),
            (b"a\nb\tc\rd", "a\\nb\\tc\\rd"),
            (b"it's \"fine\"", "it's \"fine\""),
            (b"\xff\xc3(", "\\xff\\xc3("),
            (b"\\n", "\\\\n"),
            ("bl\u{e5}b\u{e6}r".as_bytes(), "bl\u{e5}b\u{e6}r"),
            ("x\u{202e}gnp.exe".as_bytes(), "x\\u{202e}gnp.exe"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
        ] {
            assert_eq!(printable(bytes), shown);
        }
        assert_eq!(lossy(b"a\xffb"), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn never_a_control_character(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = printable(&bytes);
            prop_assert!(!text.chars().any(|c| c.is_control() || is_unseen(c)), "{text:?}");
        }

        #[test]
        fn names_stay_apart(one in "\\PC{0,8}|[\\\\nx1b\\x1b\\n]{0,6}", other in "\\PC{0,8}|[\\\\nx1b\\x1b\\n]{0,6}") {
            prop_assert_eq!(printable(one.as_bytes()) == printable(other.as_bytes()), one == other);
        }
    }
}
