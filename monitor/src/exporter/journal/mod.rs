//! The journal: what must be known about a boot after it has ended uncleanly, and what must survive
//! a restart of the monitor within it. Each entry is on stable storage before the next one is
//! written.

pub mod error;
mod essence;
pub mod file;
mod lock;
pub mod old_state;
pub mod saved;
pub(super) mod writer;
