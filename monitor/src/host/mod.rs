//! Reads the state of the host: packages that an update left unfinished, livepatches that should be
//! in force, which evidence a crash would leave, which machine it is. Every reader takes its root
//! path.

pub mod crash_capture;
pub mod expected;
pub mod machine;
pub mod packages;
mod stamp;
