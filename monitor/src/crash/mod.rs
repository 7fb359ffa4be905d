//! Crashes of this host on disk: what earlier boots left, and the records made of it.

pub mod gather;
pub mod store;
