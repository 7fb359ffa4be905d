//! The flight recorder: what must be known of a boot after it has ended badly. Each
//! note is on stable storage before the next one is taken.

pub mod file;
pub mod frame;
pub mod history;
pub mod note;
