//! Builds the BPF programs and the static programs that run in a guest.

pub(crate) mod bpf;
pub(crate) mod guest_binaries;
pub(crate) mod toolchain;
