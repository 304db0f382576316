//! Processes, namespaces and other processes' descriptors.

use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
};

use super::outcome;

/// The overflow user and group, which own nothing.
pub(in crate::selftest) const NOBODY: u32 = 65_534;

/// Runs `child` in a fork(2) and waits for it; the child ends with what it returns.
///
/// The process must have one thread: another's locks would stay locked in the child.
pub(in crate::selftest) fn in_fork(child: impl FnOnce() -> u8) -> io::Result<()> {
    // SAFETY: an attempt's process has one thread, so the child may do all that the parent could.
    let pid = outcome(unsafe { libc::fork() })?;
    if pid == 0 {
        let code = child();
        // SAFETY: ends the child without running what the parent left to be run at its end.
        unsafe { libc::_exit(i32::from(code)) };
    }
    let mut status = 0;
    // SAFETY: the status is written to a value of ours.
    outcome(unsafe { libc::waitpid(pid, &raw mut status, 0) }).map(drop)
}

/// setsid(2).
pub(in crate::selftest) fn new_session() -> io::Result<()> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::setsid() }).map(drop)
}

/// unshare(2).
pub(in crate::selftest) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is passed, and descriptors stay shared: CLONE_FILES is not among the flags used.
    outcome(unsafe { libc::unshare(flags) }).map(drop)
}

/// setns(2) into a network namespace.
pub(in crate::selftest) fn enter_network(namespace: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// chroot(2).
pub(in crate::selftest) fn change_root(path: &CStr) -> io::Result<()> {
    // SAFETY: a string with its NUL.
    outcome(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
}

/// A descriptor of another process, by pidfd_open(2) and pidfd_getfd(2).
pub(in crate::selftest) fn steal(pid: u32, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let process = call(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: no memory is passed.
    call(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// bpf(2) with a command and its attributes; a new descriptor where it gives one.
pub(in crate::selftest) fn descriptor_of(result: libc::c_long) -> io::Result<OwnedFd> {
    call(result)
}

fn call(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(result).map_err(io::Error::other)?;
    let number = outcome(number)?;
    // SAFETY: the kernel made it for this process this moment.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// ioctl(2) TUNSETIFF: makes the interface of an open `/dev/net/tun`, without packet information.
pub(in crate::selftest) fn make_tun(device: &impl AsRawFd, name: &CStr) -> io::Result<()> {
    // struct ifreq: 16 bytes of name, then the flags.
    let mut request = [0_u8; 40];
    for (place, byte) in request.iter_mut().take(15).zip(name.to_bytes()) {
        *place = *byte;
    }
    let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads and writes one struct ifreq, of 40 bytes.
    outcome(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) }).map(drop)
}

/// Asks for SIGKILL when the thread that started this process ends. For the time between fork(2) and
/// execve(2): nothing but a system call.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// Starts a program that is killed when the thread which calls this ends.
pub(in crate::selftest) fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork(2) and execve(2) nothing but one system call.
    unsafe { command.pre_exec(die_with_parent) }.spawn()
}

/// What [`spawn`] does, for a command that is started elsewhere; and a descriptor to start it with.
pub(in crate::selftest) fn prepare(command: &mut tokio::process::Command, inherited: Option<(i32, i32)>) {
    let before = move || {
        if let Some((fd, at)) = inherited {
            leave_open(fd, at)?;
        }
        die_with_parent()
    };
    // SAFETY: between fork(2) and execve(2) nothing but system calls on plain numbers.
    unsafe { command.pre_exec(before) };
}

/// Gives up root for good: no groups, uid and gid 65534; stays readable for itself in `/proc`.
pub(in crate::selftest) fn become_nobody() -> io::Result<()> {
    // SAFETY: no groups, so no memory is read.
    outcome(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: no memory is passed. Without it /proc/self belongs to root.
    outcome(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }).map(drop)
}

/// Puts a copy of a descriptor at a number, where an execve(2) leaves it open.
fn leave_open(fd: i32, at: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; the caller is a child between fork(2) and execve(2).
    outcome(unsafe { libc::dup2(fd, at) }).map(drop)
}
