//! Crashes of this host on disk: what earlier boots left, and the records made from it.

pub mod closing;
pub mod gather;
pub mod kdump_config;
pub mod look;
mod seen;
pub mod sources;
pub mod store;
pub mod text;
