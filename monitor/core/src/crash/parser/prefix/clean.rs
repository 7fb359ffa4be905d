//! Converts a file to plain-text lines: decodes other encodings, and removes what terminals and web
//! pages add.

use std::{borrow::Cow, str::Chars};

/// Most bytes of a line that are examined; the kernel's own have at most 1024, plus what a log
/// keeper adds.
pub(super) const MAX_LINE: usize = 8192;

/// Converts UTF-16 with a byte order mark to UTF-8, and decodes quoted-printable mail; other bytes
/// are unchanged.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    match utf_8(bytes) {
        Cow::Borrowed(bytes) if is_quoted_printable(bytes) => Cow::Owned(unquoted(bytes)),
        text => text,
    }
}

/// Bytes within which a mail's encoding is shown.
const HEAD: usize = 64 << 10;

/// Lines that end in `=` continue in the next one, and `=` itself is `=3D` (RFC 2045).
fn is_quoted_printable(bytes: &[u8]) -> bool {
    let head = bytes.get(..HEAD).unwrap_or(bytes);
    let lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    // The sanitizers' own lines consist of `=`.
    let soft = lines.filter(|line| line.ends_with(b"=") && !line.ends_with(b"=="));
    let soft = soft.count() > 1;
    let coded = |code: &[u8]| head.windows(3).any(|window| window == code);
    soft && (coded(b"=3D") || coded(b"=20"))
}

fn unquoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'=' {
            out.push(*first);
            continue;
        }
        let digits = behind
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok());
        if let Some(behind) = behind.strip_prefix(b"\n").or(behind.strip_prefix(b"\r\n")) {
            rest = behind;
        } else if let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            out.push(byte);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            out.push(*first);
        }
    }
    out
}

/// Reverses the order of lines.
pub(super) fn reversed(bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.reverse();
    lines.join(&b'\n')
}

fn utf_8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        [0xef, 0xbb, 0xbf, rest @ ..] => return Cow::Borrowed(rest),
        _ => return Cow::Borrowed(bytes),
    };
    let units = bytes.chunks_exact(2).skip(1);
    let units = units.filter_map(|pair| Some(unit(pair.try_into().ok()?)));
    let text: String = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Cow::Owned(text.into_bytes())
}

/// A line without colours, titles, NULs and hard spaces; with `html`, also without tags and with
/// its entities decoded.
pub(super) fn line(bytes: &[u8], html: bool) -> Cow<'_, str> {
    let bytes = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let strange = |byte: u8| byte < b' ' && byte != b'\t' || byte >= 0x80 || byte == 0x7f;
    let mut text = match text.bytes().any(strange) {
        true => Cow::Owned(plain(&text)),
        false => text,
    };
    if html && text.contains(['<', '&']) {
        text = Cow::Owned(entities(&tags(&text)));
    }
    match text.trim_end().len() {
        whole if whole == text.len() => text,
        _ => Cow::Owned(text.trim_end().to_owned()),
    }
}

fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\x1b' => rest = escape(rest, out.is_empty()),
            '\u{9b}' => rest = csi(rest),
            // A name must not erase the text before it.
            '\u{8}' => {}
            '\u{a0}' | '\u{202f}' | '\u{2007}' => out.push(' '),
            '\0' | '\u{feff}' | '\u{200b}' | '\u{1e}' | '\u{7f}' => {}
            _ => out.push(next),
        }
    }
    out
}

/// Skips a colour, a title or a character set that an escape character starts. Titles are accepted
/// only at the start of a line: elsewhere a name could hide the rest of the line with one.
fn escape(text: Chars<'_>, starts_line: bool) -> Chars<'_> {
    let mut rest = text.clone();
    match rest.next() {
        Some('[') => csi(rest),
        // To BEL or ESC \; screen's is ESC k.
        Some(']' | 'k' | 'P' | '_' | '^') if starts_line => {
            match rest.find(|next| ['\x07', '\x1b'].contains(next)) {
                Some('\x1b') => rest.as_str().strip_prefix('\\').map_or(rest, str::chars),
                Some(_) => rest,
                None => text,
            }
        }
        Some('(' | ')' | '#' | ' ') => {
            rest.next();
            rest
        }
        _ => text,
    }
}

/// Skips a control sequence's parameters and its letter (ECMA-48, 5.4); returns the whole text if
/// there is none.
fn csi(text: Chars<'_>) -> Chars<'_> {
    let mut rest = text.clone();
    let end = rest.find(|next| !matches!(next, '0'..='9' | ';' | ':' | '?' | '='));
    match end {
        Some(letter) if letter.is_ascii_alphabetic() => rest,
        _ => text,
    }
}

/// Tags that web pages put around a log.
const TAGS: [&str; 12] = [
    "pre", "span", "br", "p", "div", "code", "font", "b", "td", "tr", "a", "li",
];

fn tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('<') {
        out.push_str(before);
        let name = behind.strip_prefix('/').unwrap_or(behind);
        let end = name.find(|next: char| !next.is_ascii_alphanumeric());
        let name = name.get(..end.unwrap_or(0)).unwrap_or_default();
        match behind.split_once('>') {
            Some((_, behind)) if TAGS.contains(&name) => rest = behind,
            _ => {
                out.push('<');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let found = behind
            .split_once(';')
            .and_then(|(name, behind)| Some((entity(name)?, behind)));
        if let Some((character, behind)) = found {
            out.push(character);
            rest = behind;
        } else {
            out.push('&');
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            let character = char::from_u32(code)?;
            if character.is_control() || character == '\u{a0}' {
                ' '
            } else {
                character
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_and_pages_put_in() {
        for (text, html, expected) in [
            ("\x1b[32m[ 1.0] \x1b[0m\x1b[31mx\x1b[0m", false, "[ 1.0] x"),
            ("\x1b]0;title\x07[ 1.0] x", false, "[ 1.0] x"),
            ("\x1bktitle\x1b\\[ 1.0] x\x1b(B", false, "[ 1.0] x"),
            ("[\u{a0} 1.0] x \u{a0}", false, "[  1.0] x"),
            ("\0\0x\0", false, "x"),
            ("ab\u{8}c", false, "abc"),
            ("a\x1bkb\x07c\x1b[d", false, "akb\x07c"),
            ("\x1b]a", false, "]a"),
            ("\x1b[[7] a", false, "[7] a"),
            (
                "&lt;6&gt;[ 1.0] &#x27;a&#39; &amp;c",
                true,
                "<6>[ 1.0] 'a' &c",
            ),
            (
                "<span class=\"x\">[ 1.0]</span> <TASK>",
                true,
                "[ 1.0] <TASK>",
            ),
            ("&lt;", false, "&lt;"),
            ("a &b; &#10; &", true, "a &b;   &"),
        ] {
            assert_eq!(line(text.as_bytes(), html), expected, "{text:?}");
        }
    }

    #[test]
    fn quoted_printable() {
        let mail = b"[ 1.0] a=3Db =20\n[ 1.1] list_del corr=\nuption x=\r\ny\n=zz\n";
        assert_eq!(
            *decode(mail),
            *b"[ 1.0] a=b  \n[ 1.1] list_del corruption xy\n=zz\n"
        );
        let rules = b"[ 1.0] =====\n[ 1.1] order=20\n[ 1.2] =====\n";
        assert_eq!(*decode(rules), *rules);
    }

    #[test]
    fn utf_16() {
        let text = "[ 1.0] x\n";
        for (mark, bytes) in [
            ([0xff, 0xfe], u16::to_le_bytes as fn(u16) -> [u8; 2]),
            ([0xfe, 0xff], u16::to_be_bytes),
        ] {
            let mut file = mark.to_vec();
            file.extend(text.encode_utf16().flat_map(bytes));
            assert_eq!(*decode(&file), *text.as_bytes());
        }
    }
}
