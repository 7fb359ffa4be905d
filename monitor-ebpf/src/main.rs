//! The BPF programs. They only read: every probe is an entry probe (an exit
//! trampoline makes the stack above it unreliable to livepatch itself), none
//! sits on a function that livepatch calls for every task.
#![no_std]
#![no_main]

mod crash;
mod kernel;
mod probes;
mod scan;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No code here can panic, but the language requires a handler.
    loop {}
}

/// The kernel allows its GPL-only helpers only to programs with a GPL-compatible license.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
