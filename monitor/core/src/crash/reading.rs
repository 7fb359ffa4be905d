//! What a text is read with.

use crate::function_ref::FunctionRef;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// The moment on the wall clock, in seconds since 1970.
    pub unix_seconds: f64,
    /// Seconds on the log's clock.
    pub uptime_seconds: f64,
}

/// A function that a loaded patch replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The livepatch, by its module's name.
    pub patch: String,
    /// The function that it replaces.
    pub function: FunctionRef,
}

/// What a text is read with.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How long after the end of a transition a crash counts as in its soak.
    pub soak_seconds: f64,
    /// What is known of the last boot's clock from elsewhere.
    pub anchor: Option<Anchor>,
    /// What the loaded patches replace, where that is known.
    pub replaced: Vec<Replaced>,
}

impl Reading {
    /// For a text about which nothing else is known.
    #[must_use]
    pub fn new(soak_seconds: f64) -> Self {
        Self {
            soak_seconds,
            anchor: None,
            replaced: Vec::new(),
        }
    }
}
