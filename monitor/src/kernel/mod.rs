//! Readers of the running kernel's interfaces. Each takes the root path to read below.

pub mod bpf_links;
pub mod btf;
pub mod clock;
pub mod counts;
pub mod dumps;
pub mod events;
pub mod kallsyms;
pub mod kmsg;
pub mod layout;
pub mod live_modules;
pub mod lockdown;
pub mod modules;
pub mod namespace;
pub mod probes;
pub mod procfs;
pub mod pstore;
pub mod scan;
pub mod sysfs;
pub mod tasks;
pub mod tracers;
