//! The cgroup programs: one file per family of hooks.
//!
//! What a call may do is judged by `agentgate_common::verdict`; here calls are read, addresses
//! rewritten, flows kept and refusals reported. Programs hold no policy beyond the settings map,
//! never wait, and refuse what they cannot read or store.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "contexts are raw pointers and helpers are foreign functions")]

mod bind;
mod connect;
mod datagram;
mod egress;
mod emit;
mod error;
mod facts;
mod getpeer;
mod layout;
mod lsm;
mod maps;
mod option;
mod socket;
mod sockops;
mod watch;

/// Unreachable: the verifier would refuse a program that could come here. `core` wants it declared.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the programs call helpers that the kernel keeps for GPL-compatible code.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
