//! A limitation of the monitor on this host.

/// A capability that the monitor lacks on this host, and how to restore it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// What is missing, and what is unknown because of it.
    pub what: String,
    /// What an operator can do about it; empty if nothing helps.
    pub remedy: String,
}
