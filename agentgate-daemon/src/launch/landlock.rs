//! A Landlock domain around the command, for what has no path that could be hidden: abstract unix
//! sockets.
//!
//! `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` (Linux 6.12, ABI 6; landlock(7)) refuses to connect or send to
//! an abstract socket that was made outside the domain, such as those of session buses and display
//! servers. The command's own still reach each other. A domain also ends ptrace(2), `/proc/PID/root`,
//! `/proc/PID/fd` and pidfd_getfd(2) at its processes, for root too. No file access is handled: that
//! would forbid mounts, which sandboxes inside the command make.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` of linux/landlock.h.
const ABSTRACT_UNIX_SOCKET: u64 = 1;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: libc::c_uint = 1;
/// First version of the interface with scopes.
pub const SCOPES: u32 = 6;

/// `struct landlock_ruleset_attr` as of ABI 6.
#[repr(C)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// The kernel's version of the interface; `None` where it has no Landlock or it is switched off.
#[must_use]
#[expect(unsafe_code, reason = "landlock_create_ruleset(2) has no wrapper in the crates in use")]
pub fn version() -> Option<u32> {
    // SAFETY: with VERSION the kernel reads no attributes and makes no descriptor.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Attributes>(), 0_usize, VERSION)
    };
    u32::try_from(answer).ok().filter(|version| *version > 0)
}

/// Puts this thread, and whatever it becomes or starts, into a domain of its own. `false` where the
/// kernel has no scopes.
///
/// # Errors
/// Where the kernel has them and refuses: without `no_new_privs` or `CAP_SYS_ADMIN`, and in the
/// seventeenth domain in another.
#[expect(unsafe_code, reason = "Landlock's calls have no wrapper in the crates in use")]
pub(super) fn scope_abstract_sockets() -> io::Result<bool> {
    if version().is_none_or(|version| version < SCOPES) {
        return Ok(false);
    }
    let attributes = Attributes { handled_access_fs: 0, handled_access_net: 0, scoped: ABSTRACT_UNIX_SOCKET };
    // SAFETY: `attributes` is live for the call and its size is given.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&attributes),
            size_of::<Attributes>(),
            0,
        )
    };
    let number = match i32::try_from(made) {
        Ok(number) if number >= 0 => number,
        Ok(_) | Err(_) => return Err(io::Error::last_os_error()),
    };
    // SAFETY: the kernel has just made it and nobody else owns it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: the arguments are a live descriptor and flags.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, std::os::fd::AsRawFd::as_raw_fd(&ruleset), 0)
    };
    if result == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}
