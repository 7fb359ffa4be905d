//! The journal: what must be known about a boot after it has ended in a crash. Each entry is on
//! stable storage before the next one is written.

pub mod file;
pub(super) mod writer;
