//! A running transition in words.

use std::time::Duration;

use crate::transition::Direction;

/// What the kernel does on the way in this direction.
#[must_use]
pub const fn doing(direction: Direction) -> &'static str {
    match direction {
        Direction::Patch => "patching",
        Direction::Unpatch => "unpatching",
    }
}

/// `1h 2m 3s`, to the second.
#[must_use]
pub fn age(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// For how long and how far, as `patching for 8s, 8 attempts, 1 task pending`. What is
/// unknown is shown as unknown, except for the attempts, which are left out.
#[must_use]
pub fn progress(
    direction: Direction,
    running_for: Option<Duration>,
    attempts: Option<u32>,
    pending: Option<u64>,
) -> String {
    let doing = doing(direction);
    let age = running_for.map_or_else(|| "an unknown time".to_owned(), age);
    let attempts = match attempts {
        None => String::new(),
        Some(1) => ", 1 attempt".to_owned(),
        Some(attempts) => format!(", {attempts} attempts"),
    };
    let tasks = match pending {
        None => "an unknown number of tasks pending".to_owned(),
        Some(1) => "1 task pending".to_owned(),
        Some(tasks) => format!("{tasks} tasks pending"),
    };
    format!("{doing} for {age}{attempts}, {tasks}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_unknown_is_said() {
        let eight = Some(Duration::from_millis(8_900));
        assert_eq!(
            progress(Direction::Patch, eight, Some(8), Some(1)),
            "patching for 8s, 8 attempts, 1 task pending"
        );
        assert_eq!(
            progress(Direction::Unpatch, None, Some(1), Some(0)),
            "unpatching for an unknown time, 1 attempt, 0 tasks pending"
        );
        assert_eq!(
            progress(Direction::Unpatch, eight, None, None),
            "unpatching for 8s, an unknown number of tasks pending"
        );
    }
}
