//! Something that this host does not let the monitor do.

/// A function of the monitor that is missing on this host, and how to get it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// What is missing, and what is not known because of it.
    pub what: String,
    /// What an operator can do about it; empty where nothing helps.
    pub remedy: String,
}
