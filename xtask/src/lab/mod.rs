//! The lab: virtual machines with the kernels of the matrix, and what is in them.

pub(crate) mod artifacts;
pub(crate) mod command;
mod command_line;
pub(crate) mod host_files;
mod in_tree_modules;
pub(crate) mod initramfs;
pub(crate) mod interop;
pub(crate) mod kernels;
pub(crate) mod machine;
pub(crate) mod modules;
pub(crate) mod reboot_vm;
pub(crate) mod vm;
