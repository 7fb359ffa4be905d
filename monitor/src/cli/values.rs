//! Parsers for the values of flags. Each error says what is wrong and what to write instead.

use std::{net::SocketAddr, time::Duration};

/// Longest duration accepted: no operation takes longer, and no clock overflows.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Parses a duration of at most ten years.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 15s, 2m or 1h30m"))?;
    if duration > LONGEST {
        return Err("longer than 10 years; write 15s, 2m or 1h30m".to_owned());
    }
    Ok(duration)
}

/// Parses a count.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "not a whole number of 0 or more; write a number such as 50".to_owned())
}

/// Accepts any text that is not empty.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(
            "must not be empty: an empty value matches every series without the label".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Parses an address to listen on. Host names are refused, since what they resolve to may
/// change.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.parse::<u16>().is_ok() {
            return format!("the address is missing; write 0.0.0.0:{port} to listen on all");
        }
        "not an IP address with a port; write 127.0.0.1:9969 or [::1]:9969".to_owned()
    })
}

/// Paths that serve something else.
const RESERVED: [&str; 2] = ["/-/healthy", "/-/ready"];

/// Checks the URL path that serves the metrics.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn telemetry_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !text.starts_with('/')
        || text.len() < 2
        || RESERVED.contains(&text)
        || !text.chars().all(plain)
    {
        return Err(
            "must be a path such as /metrics, other than /, /-/healthy and /-/ready".into(),
        );
    }
    Ok(text.to_owned())
}

/// Checks the name of a livepatch, which is its module's name (scripts/Makefile.lib turns
/// each `-` of the file's name into `_`; `MODULE_NAME_LEN` is 56 on 64-bit machines).
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn patch_name(text: &str) -> Result<String, String> {
    let name = text.rsplit('/').next().unwrap_or_default();
    let stem = name.split(".ko").next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || text.len() > 55 {
        return Err(
            "not a module name, which has 1 to 55 characters; write it as \
            /sys/kernel/livepatch does"
                .to_owned(),
        );
    }
    if !text.chars().all(plain) {
        let wanted = stem.replace(|c: char| !plain(c), "_");
        return Err(format!(
            "not a module name; write it as /sys/kernel/livepatch does, perhaps \
             {wanted}"
        ));
    }
    Ok(text.to_owned())
}

/// Parses a time and returns it in seconds since 1970.
///
/// # Errors
/// A message that says what is wrong and what to write instead.
pub fn moment(text: &str) -> Result<f64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds.is_finite() && seconds >= 0.0 {
            Ok(seconds)
        } else {
            Err("not a time since 1970; write 2026-11-23T16:00:00Z".to_owned())
        };
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| {
        format!("{error}; write 2026-11-23T16:00:00Z (UTC), or seconds since 1970")
    })?;
    let since = time.duration_since(std::time::UNIX_EPOCH);
    since
        .map(|since| since.as_secs_f64())
        .map_err(|_| "before 1970; write 2026-11-23T16:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_end() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("9years").is_ok());
        for text in ["11years", "100000000000y", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_without_one_get_a_proposal() {
        assert!(listen_address("[::1]:0").is_ok());
        for text in [":9969", "9969"] {
            let error = listen_address(text).unwrap_err();
            assert!(error.contains("0.0.0.0:9969"), "{error}");
        }
        for text in ["", "localhost:9969", "127.0.0.1", "127.0.0.1:99999", "::1"] {
            let error = listen_address(text).unwrap_err();
            assert!(error.contains("127.0.0.1:9969"), "{text}: {error}");
        }
    }

    #[test]
    fn names_of_files_become_names_of_modules() {
        assert!(patch_name("livepatch_2026_11_fix").is_ok());
        for text in ["kpatch-fix", "/var/lib/kpatch/kpatch-fix.ko.xz"] {
            let error = patch_name(text).unwrap_err();
            assert!(error.ends_with(" kpatch_fix"), "{error}");
        }
        assert!(patch_name("").is_err());
        assert!(patch_name(&"x".repeat(56)).is_err());
    }
}
