//! What the host is meant to be, and what an update left of that: packages, livepatches
//! on disk, what would be kept of a crash. Every reader takes its root path.

pub mod crash_capture;
pub mod expected;
pub mod packages;
mod stamp;
