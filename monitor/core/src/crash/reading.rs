//! Context for parsing a log: clocks, soak, replaced functions.

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

/// Context for parsing a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How long after the end of a transition a crash still counts as in its soak.
    pub soak_seconds: f64,
    /// Clock of the last boot in the log, known from another source.
    pub anchor: Option<Anchor>,
    /// The functions that the loaded patches replace, if known.
    pub replaced: Vec<Replaced>,
}

impl Reading {
    /// Context for a log about which nothing else is known.
    #[must_use]
    pub fn new(soak_seconds: f64) -> Self {
        Self {
            soak_seconds,
            anchor: None,
            replaced: Vec::new(),
        }
    }
}
