//! System calls as 32 bit programs make them, which every program of x86-64 can: the kernel looks at the
//! way of the call, not at the program.

use std::{io, os::fd::OwnedFd};

/// setsockopt(2) by `int 0x80`, for values of up to 4096 bytes.
///
/// # Errors
/// The kernel's, and `ENOSYS` on other machines. A kernel without 32 bit calls ends the process.
#[cfg(target_arch = "x86_64")]
pub(in crate::selftest) fn set_option(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    use std::{arch::asm, os::fd::AsRawFd as _, ptr};

    /// `setsockopt` of arch/x86/entry/syscalls/syscall_32.tbl.
    const SETSOCKOPT: i32 = 366;
    const PAGE: usize = 4096;
    let size = i32::try_from(value.len()).map_err(io::Error::other)?;
    if value.len() > PAGE {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // Such a call has pointers of 32 bits.
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: a fresh mapping, which nobody else knows of.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut result = SETSOCKOPT;
    // SAFETY: the page is writable and as long as the value at least; the call reads it and writes no
    // memory. rbx, which the compiler keeps for itself, is put back.
    unsafe {
        ptr::copy_nonoverlapping(value.as_ptr(), page.cast(), value.len());
        asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(fd.as_raw_fd()) => _,
            inout("eax") result,
            in("ecx") level,
            in("edx") name,
            in("rsi") page,
            in("edi") size,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            options(nostack),
        );
        libc::munmap(page, PAGE);
    }
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// No such calls here.
///
/// # Errors
/// `ENOSYS`.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::selftest) fn set_option(_: &OwnedFd, _: i32, _: i32, _: &[u8]) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
