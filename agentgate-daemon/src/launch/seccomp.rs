//! A seccomp filter that closes to a guarded command what no program on the cgroup sees.
//!
//! - Typing into its terminal: `agentctl run` leaves the command on the terminal of the shell it was
//!   started from, and that shell is not under guard. `ioctl(TIOCSTI)` and `ioctl(TIOCLINUX)`
//!   (ioctl_tty(2), ioctl_console(2)) put text into the terminal's input, which the shell would run once
//!   the agent has ended.
//! - Sockets of other families than unix, inet, inet6 and netlink (AF_PACKET, AF_VSOCK, AF_ALG and what
//!   comes): no hook of a cgroup's judges what they send. Nor of `SOCK_PACKET`, which makes an AF_PACKET
//!   socket where AF_INET is asked for.
//! - Options that the programs take and do not set: for calls of 32 bit programs, and of x32, the kernel does
//!   not ask them (net/socket.c, `do_sock_setsockopt`), and every process can make such calls.
//! - io_uring, which makes and uses sockets by entries in a ring that this filter does not read.
//!
//! Everything else is let through: this is no sandbox. ptrace(2), process_vm_writev(2) and
//! pidfd_getfd(2) stay, since agents debug their own children; that they end at the command's own
//! processes is for `hide` and `landlock` to see to.

use std::io;

use agentgate_common::verdict::is_swallowed;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Offsets in `struct seccomp_data` (seccomp(2)): the number of the call, the architecture, and the low
/// halves of the first three arguments on a little-endian machine. The kernel takes an ioctl's command, a
/// socket's family, and an option and its level as 32 bits, so the high halves say nothing and must not be
/// looked at.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const THIRD: u32 = 32;

/// Commands that write into a terminal's input: asm-generic/ioctls.h, the same on every architecture
/// here.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// Families that a command may have sockets of: the two that the programs on the cgroup judge, and the
/// two that do not leave the host.
const FAMILIES: [u32; 4] = [
    libc::AF_UNIX.cast_unsigned(),
    libc::AF_INET.cast_unsigned(),
    libc::AF_INET6.cast_unsigned(),
    libc::AF_NETLINK.cast_unsigned(),
];

/// `SOCK_PACKET` of linux/net.h, and the bits of a socket's type that are not flags (`SOCK_TYPE_MASK`).
const OLD_PACKET: u32 = 10;
const TYPE: u32 = 0xf;

/// `io_uring_setup`, `_enter` and `_register`: the same number in every ABI (asm-generic/unistd.h). The
/// last two as well, for a ring that was handed in.
const IO_URING: [u32; 3] = [425, 426, 427];

/// `SYS_SOCKET` and `SYS_SOCKETPAIR` of socketcall(2) (linux/net.h).
const SOCKETCALLS: [u32; 2] = [1, 8];
/// `SYS_SETSOCKOPT` of the same.
const SETSOCKOPT: u32 = 14;
/// Levels and names of options that can matter are below this.
const OPTIONS: i32 = 256;

/// An ABI that processes of this machine can call the kernel by: `AUDIT_ARCH_*` of linux/audit.h, and
/// the numbers of calls in it.
struct Abi {
    architecture: u32,
    /// Bits of the number that choose the table and not the call.
    ignored: u32,
    ioctl: &'static [u32],
    /// socket(2) and socketpair(2): both take the family first and the type second.
    socket: &'static [u32],
    /// socketcall(2): its family is behind a pointer, which a filter cannot follow.
    socketcall: &'static [u32],
    /// setsockopt(2), where the kernel does not ask the programs.
    setsockopt: &'static [u32],
}

/// Of x86_64: 64 bit, x32 (the same architecture with bit 30 set and an ioctl of its own; kernels have
/// differed in which numbers they take with and without the bit, so all four are meant), and i386. Of
/// aarch64: 64 bit, and 32 bit ARM.
const ABIS: [Abi; 4] = [
    Abi {
        architecture: 0xc000_003e,
        ignored: 0x4000_0000,
        ioctl: &[16, 514],
        socket: &[41, 53],
        socketcall: &[],
        setsockopt: &[541],
    },
    Abi {
        architecture: 0x4000_0003,
        ignored: 0,
        ioctl: &[54],
        socket: &[359, 360],
        socketcall: &[102],
        setsockopt: &[366],
    },
    Abi {
        architecture: 0xc000_00b7,
        ignored: 0,
        ioctl: &[29],
        socket: &[198, 199],
        socketcall: &[],
        setsockopt: &[],
    },
    Abi {
        architecture: 0x4000_0028,
        ignored: 0,
        ioctl: &[54],
        socket: &[281, 288],
        socketcall: &[102],
        setsockopt: &[294],
    },
];

const REFUSE: u32 = answer(libc::EPERM);
/// For an option: that it is set, as the programs on the cgroup say.
const DONE: u32 = answer(0);
/// For a socket: what socket(2) says where the kernel lacks the family, so clients that only try take
/// the way they have for that. It is what systemd's `RestrictAddressFamilies=` answers too.
const NO_FAMILY: u32 = answer(libc::EAFNOSUPPORT);
/// For io_uring: what a kernel without it says, on which runtimes (libuv, tokio-uring) use epoll.
const NO_CALL: u32 = answer(libc::ENOSYS);

const fn answer(errno: libc::c_int) -> u32 {
    SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// Installs the filter in this thread, and with it in whatever it becomes or starts. Nobody can take it
/// out again.
///
/// # Errors
/// Where the kernel has no seccomp, and without `CAP_SYS_ADMIN` where new privileges are allowed.
#[expect(unsafe_code, reason = "seccomp(2) has no wrapper in the crates in use")]
pub(super) fn install() -> io::Result<()> {
    let mut filter = program();
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` names `filter`'s instructions, which the kernel copies during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The filter. Calls of an ABI that is not in [`ABIS`] are refused, whatever they are: unread they could
/// be the ones that are meant.
fn program() -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for abi in ABIS {
        let body = judge(&abi);
        // The architecture stays in the accumulator where the body is jumped over.
        program.push(unless_equal(abi.architecture, body.len()));
        program.extend(body);
    }
    program.push(give(REFUSE));
    program
}

/// What happens to the calls of one ABI; ends with an answer on every way through.
fn judge(abi: &Abi) -> Vec<sock_filter> {
    let typing = choose(SECOND, &[TIOCSTI, TIOCLINUX], REFUSE, SECCOMP_RET_ALLOW);
    let mut family = vec![load(SECOND), keep(TYPE), unless_equal(OLD_PACKET, 1), give(NO_FAMILY)];
    family.extend(choose(FIRST, &FAMILIES, SECCOMP_RET_ALLOW, NO_FAMILY));
    // So a 32 bit program whose C library makes sockets by socketcall(2) has none.
    let mut socketcall = vec![load(FIRST), unless_equal(SETSOCKOPT, 1), give(REFUSE)];
    socketcall.extend(choose(FIRST, &SOCKETCALLS, NO_FAMILY, SECCOMP_RET_ALLOW));
    let option = options();
    let ring = vec![give(NO_CALL)];
    let mut body = vec![load(NUMBER), keep(!abi.ignored)];
    for (numbers, judgement) in [
        (abi.ioctl, typing),
        (abi.socket, family),
        (abi.socketcall, socketcall),
        (abi.setsockopt, option),
        (&IO_URING[..], ring),
    ] {
        for number in numbers {
            // The number stays in the accumulator where the judgement is jumped over.
            body.push(unless_equal(*number, judgement.len()));
            body.extend(&judgement);
        }
    }
    body.push(give(SECCOMP_RET_ALLOW));
    body
}

/// What setsockopt(2) comes to, by level and name.
fn options() -> Vec<sock_filter> {
    let mut body = vec![load(SECOND)];
    for level in 0..OPTIONS {
        let swallowed = (0..OPTIONS).filter(|name| is_swallowed(level, *name));
        let names: Vec<u32> = swallowed.map(i32::cast_unsigned).collect();
        if !names.is_empty() {
            let judgement = choose(THIRD, &names, DONE, SECCOMP_RET_ALLOW);
            // The level stays in the accumulator where the judgement is jumped over.
            body.push(unless_equal(level.cast_unsigned(), judgement.len()));
            body.extend(judgement);
        }
    }
    body.push(give(SECCOMP_RET_ALLOW));
    body
}

/// `then` where the argument at `offset` is one of `values`, else `otherwise`.
fn choose(offset: u32, values: &[u32], then: u32, otherwise: u32) -> Vec<sock_filter> {
    let mut body = vec![load(offset)];
    for value in values {
        body.extend([unless_equal(*value, 1), give(then)]);
    }
    body.push(give(otherwise));
    body
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

/// Leaves these bits of the accumulator.
fn keep(bits: u32) -> sock_filter {
    statement(BPF_ALU | BPF_AND | BPF_K, bits)
}

fn give(answer: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, answer)
}

/// Jumps over `skip` instructions unless the accumulator is `value`.
fn unless_equal(value: u32, skip: usize) -> sock_filter {
    let skip = u8::try_from(skip).expect("bodies are shorter than 256 instructions");
    sock_filter { jf: skip, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests;
