//! The journal: what must be known of a boot after it has ended badly. Each entry is on
//! stable storage before the next one is taken.

pub mod file;
pub(super) mod writer;
