//! Kernel timestamps, as in its lines and those of `dmesg`: `[   12.345678]`.

/// `18446744073.709551615` and some padding.
const MAX_TIME: usize = 26;

/// Position of the kernel timestamp in a line.
pub(super) fn stamp(text: &str) -> Option<usize> {
    let mut places = text.match_indices('[').map(|(at, _)| at);
    places.find(|at| {
        let inner = text.get(*at..).and_then(bracket);
        inner.is_some_and(|(inner, _)| {
            // The kernel prints microseconds.
            let exact = inner
                .split_once('.')
                .is_some_and(|(_, part)| part.len() >= 6);
            exact && uptime(inner).is_some()
        })
    })
}

/// A time that lost its `[`, as the first line of a text that was copied does.
pub(super) fn lost_bracket(text: &str) -> Option<&str> {
    let (inner, _) = text.trim_start().split_once("] ")?;
    let (whole, part) = inner.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(part) && part.len() == 6).then_some(text.trim_start())
}

/// `[  inner]` at the start.
pub(super) fn bracket(text: &str) -> Option<(&str, &str)> {
    let (inner, behind) = text.strip_prefix('[')?.split_once(']')?;
    Some((inner.trim(), behind))
}

/// `12.345678`; with the time since the line before (`12.3 <    0.1>`), with a CPU
/// (`12.345678,3`, `12.345678@3`).
pub(super) fn uptime(inner: &str) -> Option<f64> {
    let (number, rest) = match inner.find([' ', ',', '@']) {
        Some(end) => inner.split_at_checked(end)?,
        None => (inner, ""),
    };
    let rest = rest.trim_start();
    let delta = rest.starts_with('<') && rest.ends_with('>');
    let cpu = rest
        .strip_prefix([',', '@'])
        .is_some_and(|cpu| short_number(cpu.trim()).is_some());
    let (whole, fraction) = number.split_once('.')?;
    // Digits only: "nan" and "1e9" are numbers elsewhere.
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ((rest.is_empty() || delta || cpu) && digits(whole) && digits(fraction)).then_some(())?;
    (number.len() <= MAX_TIME).then(|| number.parse().ok())?
}

/// `T12`, `C0`: the caller that printed a line (`CONFIG_PRINTK_CALLER`).
pub(super) fn is_caller(text: &str) -> bool {
    let (id, _) = text.split_once('@').unwrap_or((text, ""));
    id.strip_prefix(['T', 'C'])
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A number of at most three digits.
pub(super) fn short_number(digits: &str) -> Option<u32> {
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}
