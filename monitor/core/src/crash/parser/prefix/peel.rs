//! What stands before the kernel's own text in one line, taken off piece by piece.

use super::{
    super::date::{self, Date, Kind},
    marks::mark,
    profile::Profile,
    stamp::{bracket, is_caller, short_number, stamp, uptime},
    vendor,
};

/// Who wrote a line, as far as its beginning shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// The beginning does not show it.
    #[default]
    Unsaid,
    /// The kernel: its tag, its facility, its clock.
    Kernel,
    /// Another program than the kernel wrote the line.
    Other,
}

/// A line taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Peeled<'a> {
    pub(super) date: Option<Date>,
    /// The first of several, which a text with a date in it cannot choose.
    pub(super) first_date: Option<Date>,
    pub(super) host: Option<&'a str>,
    pub(super) uptime: Option<f64>,
    pub(super) caller: Option<&'a str>,
    pub(super) origin: Origin,
    /// It came with a syslog tag, and that was `kernel`.
    pub(super) tagged: bool,
    /// Syslog's facility, where shown: 0 is the kernel's.
    pub(super) facility: Option<u32>,
    /// The file's own form of beginning was taken off.
    pub(super) learned: bool,
    /// Taken for another program's, though the kernel's own text starts so.
    pub(super) doubted: bool,
    /// Which part of a text that a netconsole sent in pieces, and of what sequence.
    pub(super) fragment: Option<(u64, usize, usize)>,
    pub(super) text: &'a str,
}

/// Pieces that can stand before one text; more are not a prefix any more.
const MAX_PIECES: usize = 12;

pub(super) fn peel<'a>(line: &'a str, profile: &Profile) -> Peeled<'a> {
    let mut peeled = Peeled {
        text: line,
        ..Peeled::default()
    };
    for _ in 0..MAX_PIECES {
        if peeled.uptime.is_some() || peeled.origin == Origin::Other || !piece(&mut peeled, profile)
        {
            break;
        }
    }
    peeled.first_date = peeled.first_date.or(peeled.date);
    if peeled.facility.is_some_and(|facility| facility != 0) && !peeled.tagged {
        peeled.origin = Origin::Other;
    }
    // The kernel's facility is in use here: what has another is not the kernel's.
    if peeled.tagged && profile.kernel_facility && peeled.facility.is_some_and(|code| code != 0) {
        peeled.origin = Origin::Other;
        // Or a log daemon's that keeps the kernel's lines under another facility.
        peeled.doubted = mark(peeled.text.trim_start()) == Some(0);
    }
    peeled
}

/// Takes one piece off; false where there is none.
fn piece(peeled: &mut Peeled<'_>, profile: &Profile) -> bool {
    if peeled.tagged {
        return level(peeled) || time(peeled, profile);
    }
    quote(peeled)
        || profile.broadcast && broadcast(peeled)
        || level(peeled)
        || time(peeled, profile)
        || dated(peeled, profile)
        || record(peeled)
        || decoded(peeled)
        || guest(peeled, profile)
}

/// `> ` of a mail.
fn quote(peeled: &mut Peeled<'_>) -> bool {
    let Some(rest) = peeled.text.trim_start().strip_prefix('>') else {
        return false;
    };
    peeled.text = rest.strip_prefix(' ').unwrap_or(rest);
    true
}

/// ` kernel:`, without a date.
fn broadcast(peeled: &mut Peeled<'_>) -> bool {
    let Some(rest) = peeled.text.trim_start().strip_prefix("kernel:") else {
        return false;
    };
    peeled.tagged = true;
    peeled.origin = Origin::Kernel;
    peeled.text = rest;
    true
}

/// `<4>`; with a facility, `<30>`.
fn level(peeled: &mut Peeled<'_>) -> bool {
    let start = peeled.text.trim_start();
    let Some((digits, rest)) = start
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
    else {
        return false;
    };
    // RFC 5424 begins with `<6>1 2026-…`; old kernels with `<c>` for a line that
    // continues.
    if digits == "c" || digits == "d" {
        peeled.text = rest;
        return true;
    }
    let Some(priority) = short_number(digits) else {
        return false;
    };
    peeled.facility = Some(priority / 8);
    if priority < 8 {
        peeled.origin = Origin::Kernel;
    }
    peeled.text = match rest.strip_prefix("1 ") {
        Some(dated) if date::at_start(dated).is_some() || dated.starts_with("- ") => dated,
        _ => rest,
    };
    if peeled.text.len() < rest.len() {
        structured(peeled);
    }
    true
}

/// RFC 5424 behind its version: `DATE HOST APP PROCID MSGID DATA TEXT`.
fn structured(peeled: &mut Peeled<'_>) {
    let mut rest = peeled.text;
    if let Some((date, behind)) = date::at_start(rest) {
        peeled.date = Some(date);
        rest = behind.trim_start();
    } else {
        rest = rest.strip_prefix("- ").unwrap_or(rest);
    }
    let mut words = rest.splitn(5, ' ');
    let (Some(host), Some(app), Some(_), Some(_), Some(data)) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return;
    };
    peeled.host = (host != "-").then_some(host);
    peeled.tagged = is_kernel(app);
    peeled.origin = if peeled.tagged {
        Origin::Kernel
    } else {
        Origin::Other
    };
    let text = match data.strip_prefix("- ") {
        Some(text) => text,
        None if data == "-" => "",
        // A `]` inside a value is written `\]`.
        None => data.split_once("] ").map_or(data, |(_, text)| text),
    };
    peeled.text = text.strip_prefix('\u{feff}').unwrap_or(text);
}

/// `[   12.345678]`, with what kernels and `dmesg` put inside and behind, or a date.
fn time(peeled: &mut Peeled<'_>, profile: &Profile) -> bool {
    let start = peeled.text.trim_start();
    let Some((inner, behind)) = bracket(start) else {
        return false;
    };
    if let Some(uptime) = uptime(inner) {
        peeled.uptime = Some(uptime);
        peeled.origin = Origin::Kernel;
        let mut rest = behind;
        // makedumpfile has a space before the caller.
        let next = rest.strip_prefix(' ').unwrap_or(rest);
        if let Some((caller, behind)) = bracket(next).filter(|(inner, _)| is_caller(inner)) {
            peeled.caller = Some(caller);
            rest = behind;
        }
        rest = rest.strip_prefix(' ').unwrap_or(rest);
        if profile.vendor {
            rest = vendor::behind(rest).unwrap_or(rest);
        }
        peeled.text = rest;
        // `journalctl -o short-monotonic` has the host behind its time.
        let named = profile.monotonic_host.as_deref().is_none_or(|host| {
            let behind = rest.strip_prefix(host);
            behind.is_some_and(|behind| behind.starts_with(' '))
        });
        if profile.monotonic_tags && named && peeled.date.is_none() && !peeled.tagged {
            tag(peeled, profile);
        }
        return true;
    }
    if peeled.tagged || peeled.date.is_some() {
        return false;
    }
    let Some(date) = date::whole(inner) else {
        return false;
    };
    peeled.date = Some(date);
    peeled.text = behind.strip_prefix(' ').unwrap_or(behind);
    true
}

/// A date without brackets, and what stands behind it.
fn dated(peeled: &mut Peeled<'_>, profile: &Profile) -> bool {
    let start = peeled.text.trim_start();
    let Some((date, behind)) = date::at_start(start) else {
        return false;
    };
    peeled.first_date = peeled.first_date.or(peeled.date);
    // The first date with a time zone is the best.
    if peeled.date.is_none_or(|known| known.kind != Kind::Exact) {
        peeled.date = Some(date);
    }
    let behind = behind.strip_prefix([':', ',', '|', ';']).unwrap_or(behind);
    peeled.text = behind.strip_prefix(' ').unwrap_or(behind);
    container(peeled);
    tag(peeled, profile);
    true
}

/// `stdout F ` of a container's runtime.
fn container(peeled: &mut Peeled<'_>) {
    for stream in ["stdout ", "stderr "] {
        if let Some(rest) = peeled.text.strip_prefix(stream) {
            peeled.text = rest
                .strip_prefix("F ")
                .or_else(|| rest.strip_prefix("P "))
                .unwrap_or(rest);
        }
    }
}

/// `HOST kernel: `, `HOST kern.warn kernel: `, `kern.warn kernel: `, or what another
/// program is called; a host alone.
fn tag(peeled: &mut Peeled<'_>, profile: &Profile) {
    let text = peeled.text;
    let mut rest = text.trim_start();
    let mut words: [&str; 2] = [""; 2];
    for index in 0..3 {
        if let Some((name, behind)) = tag_word(rest) {
            let facility = words.iter().rev().find_map(|word| facility(word));
            let is_host = |word: &&&str| !word.is_empty() && self::facility(word).is_none();
            let host = words.iter().find(is_host).copied();
            if is_kernel(name) {
                peeled.tagged = true;
                peeled.origin = Origin::Kernel;
            } else if profile.tags_others(host) {
                peeled.origin = Origin::Other;
                // `BUG: `, `livepatch: `: no program's name, or one that is made to look so.
                peeled.doubted = host.is_none() && mark(text.trim_start()) == Some(0);
            } else {
                break;
            }
            peeled.host = host.or(peeled.host);
            peeled.facility = facility.or(peeled.facility);
            peeled.text = behind.strip_prefix(' ').unwrap_or(behind);
            return;
        }
        let Some((word, behind)) = rest.split_once(' ') else {
            break;
        };
        let Some(place) = words.get_mut(index) else {
            break;
        };
        if !is_name(word) {
            break;
        }
        *place = word;
        rest = behind.trim_start();
    }
    // A log server's `DATE HOST ` without a tag.
    if let Some((word, behind)) = text.split_once(' ')
        && is_name(word)
        && (profile.host.as_deref() == Some(word) || is_stamped(behind))
    {
        peeled.host = Some(word);
        peeled.text = behind;
    }
}

fn is_stamped(text: &str) -> bool {
    let text = text.trim_start();
    bracket(text).is_some_and(|(inner, _)| uptime(inner).is_some()) || extended(text).is_some()
}

/// The tag of a line of syslog: `name:`, `name[pid]:`.
fn tag_word(text: &str) -> Option<(&str, &str)> {
    let end = text.find([':', ' '])?;
    let (word, behind) = text.split_at_checked(end)?;
    let behind = behind.strip_prefix(':')?;
    let name = match word.strip_suffix(']') {
        Some(word) => word.split_once('[')?.0,
        None => word,
    };
    let ends = behind.is_empty() || behind.starts_with([' ', '[', '<']);
    (ends && is_name(name)).then_some((name, behind))
}

pub(super) fn is_name(word: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/()@:%\\".contains(&byte);
    !word.is_empty() && word.len() <= 255 && !word.ends_with(':') && word.bytes().all(named)
}

fn is_kernel(name: &str) -> bool {
    ["kernel", "vmunix"].contains(&name)
}

/// A facility and a severity as syslog writes them: `kern.warn`.
fn facility(word: &str) -> Option<u32> {
    let (name, level) = word.split_once('.')?;
    let levels = [
        "emerg", "panic", "alert", "crit", "err", "error", "warn", "warning", "notice", "info",
        "debug",
    ];
    levels.contains(&level).then_some(())?;
    facility_code(name)
}

fn facility_code(name: &str) -> Option<u32> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp",
    ];
    let local = || {
        name.strip_prefix("local")?
            .parse()
            .ok()
            .map(|n: u32| 16 + n)
    };
    let at = NAMES.iter().position(|known| *known == name);
    at.and_then(|at| u32::try_from(at).ok()).or_else(local)
}

/// `dmesg -x`: `kern  :warn  : `
fn decoded(peeled: &mut Peeled<'_>) -> bool {
    let start = peeled.text.trim_start();
    let Some((facility, rest)) = start.split_once(':') else {
        return false;
    };
    let Some(code) = facility_code(facility.trim_end()).filter(|_| facility.len() <= 9) else {
        return false;
    };
    let Some((level, rest)) = rest.split_once(':').filter(|(level, _)| level.len() <= 8) else {
        return false;
    };
    let levels = [
        "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
    ];
    if !levels.contains(&level.trim()) {
        return false;
    }
    peeled.facility = Some(code);
    peeled.origin = if code == 0 {
        Origin::Kernel
    } else {
        Origin::Other
    };
    peeled.text = rest.strip_prefix(' ').unwrap_or(rest);
    true
}

/// What `/dev/kmsg` and an extended netconsole put before a text:
/// `6,416,1758426,-[,KEY=VALUE…];` (Documentation/ABI/testing/dev-kmsg).
pub(super) struct Extended<'a> {
    pub(super) priority: u32,
    pub(super) uptime: f64,
    pub(super) caller: Option<&'a str>,
    /// Sequence, offset and whole length of a text in pieces.
    pub(super) fragment: Option<(u64, usize, usize)>,
    pub(super) text: &'a str,
}

pub(super) fn extended(text: &str) -> Option<Extended<'_>> {
    let (head, body) = text.split_once(';')?;
    let mut fields = head.split(',');
    // With `console=… release` the kernel's release comes first.
    let mut first = fields.next()?;
    if first.contains('.') {
        first = fields.next()?;
    }
    let priority = first.parse().ok()?;
    let sequence: u64 = fields.next()?.parse().ok()?;
    let microseconds = fields.next()?;
    let flags = fields.next()?;
    (flags.len() == 1 && microseconds.len() <= 20).then_some(())?;
    let microseconds: u64 = microseconds.parse().ok()?;
    let (mut caller, mut fragment) = (None, None);
    for field in fields {
        if let Some(place) = field.strip_prefix("ncfrag=") {
            let (offset, whole) = place.split_once('/')?;
            fragment = Some((sequence, offset.parse().ok()?, whole.parse().ok()?));
        } else {
            caller = caller.or(field.strip_prefix("caller="));
        }
    }
    Some(Extended {
        priority,
        uptime: std::time::Duration::from_micros(microseconds).as_secs_f64(),
        caller,
        fragment,
        text: body,
    })
}

fn record(peeled: &mut Peeled<'_>) -> bool {
    let Some(record) = extended(peeled.text.trim_start()) else {
        return false;
    };
    peeled.uptime = Some(record.uptime);
    peeled.caller = record.caller.filter(|caller| is_caller(caller));
    peeled.facility = Some(record.priority / 8);
    peeled.origin = Origin::Kernel;
    peeled.fragment = record.fragment;
    peeled.text = record.text;
    true
}

/// The number of a CPU (z/VM), of a line, of a Xen guest; whatever else this file
/// has before each of its lines.
fn guest(peeled: &mut Peeled<'_>, profile: &Profile) -> bool {
    let start = peeled.text.trim_start();
    if start.starts_with("(XEN) ") {
        peeled.origin = Origin::Other;
        return true;
    }
    let Some(learned) = profile.learned.as_ref().filter(|_| !peeled.learned) else {
        return false;
    };
    let Some(rest) = learned.strip(peeled.text) else {
        return false;
    };
    // Learned before times, it stands before times; the kernel's own text never has it.
    let timed = stamp(rest) == Some(0) || !profile.learned_timed;
    if !timed || mark(start) == Some(0) {
        return false;
    }
    let before = peeled.text.len() - rest.len();
    let before = peeled.text.get(..before).unwrap_or_default();
    if peeled.date.is_none() {
        let mut places = before.char_indices().map(|(at, _)| at);
        peeled.date = places.find_map(|at| Some(date::at_start(before.get(at..)?)?.0));
    }
    peeled.learned = true;
    peeled.text = rest;
    true
}
