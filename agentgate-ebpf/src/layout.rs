//! The kernel's own structures, read at offsets that the daemon takes from the running kernel's BTF.
//!
//! aya has no relocations for Rust programs, so the offsets are globals of the read-only section, which
//! the verifier knows as constants: an offset that does not fit its type is refused at load.

use core::arch::asm;

use aya_ebpf::{Global, bindings::bpf_sock, helpers::generated::bpf_probe_read_kernel};

#[unsafe(no_mangle)]
static SOCKET_SK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCKET_FILE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_FAMILY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_OWNED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_ALLOCATION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_KERNEL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_KERNEL_BIT: Global<u32> = Global::new(0);

/// `__GFP_IO | __GFP_FS` of include/linux/gfp_types.h: what every user's socket has, and no socket that
/// carries a disk or a file system, which would otherwise wait for itself.
const IO_AND_FS: u32 = 0x40 | 0x80;

/// A `struct socket` of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct KernelSocket(*const u8);

impl KernelSocket {
    /// From a pointer that the verifier knows as one.
    pub(crate) const fn new<T>(socket: *const T) -> Self {
        Self(socket.cast())
    }

    /// Its `struct sock`, which a socket lacks before it is made and after it is closed.
    #[inline(always)]
    pub(crate) fn sock(self) -> Option<KernelSock> {
        // SAFETY: a pointer that the verifier tracks; a fault reads as zero.
        let sock = unsafe { at::<*const u8>(self.0, &SOCKET_SK) };
        (!sock.is_null()).then_some(KernelSock(sock))
    }

    /// Whether a process has, or had, a descriptor of it.
    #[inline(always)]
    pub(crate) fn has_file(self) -> bool {
        // SAFETY: as above.
        !unsafe { at::<*const u8>(self.0, &SOCKET_FILE) }.is_null()
    }
}

/// A `struct sock` of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct KernelSock(*const u8);

impl KernelSock {
    /// From a pointer that the verifier knows as one; also `struct tcp_sock`, which begins with it.
    pub(crate) const fn new<T>(sock: *const T) -> Self {
        Self(sock.cast())
    }

    /// For helpers.
    pub(crate) const fn as_ptr(self) -> *const u8 {
        self.0
    }

    /// [`Self::is_kernels`] of a socket of any kind, of whose kernel structure the verifier gives no
    /// pointer: so it is read by address. What cannot be read counts as the kernel's.
    #[inline(always)]
    pub(crate) fn is_kernels_own(sk: *const bpf_sock) -> bool {
        let address = number(sk);
        let (mut kernel, mut allocation) = (0_u8, 0_u32);
        // SAFETY: the buffers are ours and of the lengths given; a fault is an error.
        let failed = unsafe {
            bpf_probe_read_kernel(
                (&raw mut kernel).cast(),
                1,
                (address + u64::from(SOCK_KERNEL.load())) as *const _,
            ) | bpf_probe_read_kernel(
                (&raw mut allocation).cast(),
                4,
                (address + u64::from(SOCK_ALLOCATION.load())) as *const _,
            )
        };
        failed != 0 || serves_the_kernel(kernel, allocation)
    }

    /// `AF_*`.
    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        // SAFETY: as above.
        unsafe { at::<u16>(self.0, &SOCK_FAMILY) }
    }

    /// Whether a call of a process holds it. While one does, interrupts leave all work on the socket to
    /// that process (net/ipv4/tcp_ipv4.c, `tcp_add_backlog`; tcp_timer.c), so what is sent is sent by it.
    #[inline(always)]
    pub(crate) fn is_held(self) -> bool {
        // SAFETY: as above.
        unsafe { at::<u32>(self.0, &SOCK_OWNED) != 0 }
    }

    /// Whether it serves the kernel: made by it (NFS, MPTCP's subflows) or lent to it (nbd, iSCSI). Such a
    /// socket is written to in the name of whoever happens to wait for it.
    #[inline(always)]
    pub(crate) fn is_kernels(self) -> bool {
        // SAFETY: as above.
        let (kernel, allocation) =
            unsafe { (at::<u8>(self.0, &SOCK_KERNEL), at::<u32>(self.0, &SOCK_ALLOCATION)) };
        serves_the_kernel(kernel, allocation)
    }
}

/// By the byte with `sk_kern_sock`, and `sk_allocation`.
#[inline(always)]
fn serves_the_kernel(kernel: u8, allocation: u32) -> bool {
    u32::from(kernel) >> (SOCK_KERNEL_BIT.load() & 7) & 1 == 1 || allocation & IO_AND_FS != IO_AND_FS
}

/// The address in a pointer. The verifier forbids arithmetic on a pointer to a socket, also where only
/// the kernel is to follow it; twice negated it is a number to it.
#[inline(always)]
fn number<T>(pointer: *const T) -> u64 {
    let mut address = pointer as u64;
    // SAFETY: arithmetic on one register.
    unsafe {
        asm!("{address} = -{address}", "{address} = -{address}", address = inout(reg) address, options(pure, nomem, nostack));
    }
    address
}

/// # Safety
/// `base` is a pointer that the verifier tracks by its type.
#[inline(always)]
unsafe fn at<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: the caller's promise; volatile keeps the load as wide as its type.
    unsafe { base.add(offset.load() as usize).cast::<T>().read_volatile() }
}
