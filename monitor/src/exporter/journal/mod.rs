//! The journal: what must be known of a boot after it has ended badly, and what must
//! outlive a restart of the monitor within it. Each entry is on stable storage before the
//! next one is taken.

pub mod error;
mod essence;
pub mod file;
mod lock;
pub mod old_state;
pub mod saved;
pub(super) mod writer;
