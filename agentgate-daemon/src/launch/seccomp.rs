//! A seccomp filter that keeps a guarded command from typing into its terminal.
//!
//! `agentctl run` leaves the command on the terminal of the shell it was started from, and that shell is
//! not under guard. `ioctl(TIOCSTI)` and `ioctl(TIOCLINUX)` (ioctl_tty(2), ioctl_console(2)) put text
//! into the terminal's input, which the shell would run once the agent has ended. Everything else is let
//! through: this is no sandbox.

use std::io;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Offsets in `struct seccomp_data` (seccomp(2)): the number of the call, the architecture, and the low
/// half of the second argument on a little-endian machine. The kernel takes an ioctl's command as 32
/// bits, so the high half says nothing and must not be looked at.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const COMMAND: u32 = 24;

/// Commands that write into a terminal's input: asm-generic/ioctls.h, the same on every architecture
/// here.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// An ABI that processes of this machine can call the kernel by: `AUDIT_ARCH_*` of linux/audit.h, and
/// the numbers of ioctl(2) in it.
struct Abi {
    architecture: u32,
    /// Bits of the number that choose the table and not the call.
    ignored: u32,
    ioctl: &'static [u32],
}

/// Of x86_64: 64 bit, x32 (the same architecture with bit 30 set and an ioctl of its own; kernels have
/// differed in which numbers they take with and without the bit, so all four are meant), and i386. Of
/// aarch64: 64 bit, and 32 bit ARM.
const ABIS: [Abi; 4] = [
    Abi { architecture: 0xc000_003e, ignored: 0x4000_0000, ioctl: &[16, 514] },
    Abi { architecture: 0x4000_0003, ignored: 0, ioctl: &[54] },
    Abi { architecture: 0xc000_00b7, ignored: 0, ioctl: &[29] },
    Abi { architecture: 0x4000_0028, ignored: 0, ioctl: &[54] },
];

const REFUSE: u32 = SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();

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
    let commands = [
        load(COMMAND),
        unless_equal(TIOCSTI, 1),
        give(REFUSE),
        unless_equal(TIOCLINUX, 1),
        give(REFUSE),
        give(SECCOMP_RET_ALLOW),
    ];
    let mut body = vec![load(NUMBER), statement(BPF_ALU | BPF_AND | BPF_K, !abi.ignored)];
    for number in abi.ioctl {
        body.push(unless_equal(*number, commands.len()));
        body.extend(commands);
    }
    body.push(give(SECCOMP_RET_ALLOW));
    body
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn give(answer: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, answer)
}

/// Jumps over `skip` instructions unless the accumulator is `value`.
fn unless_equal(value: u32, skip: usize) -> sock_filter {
    let skip = u8::try_from(skip).expect("bodies are a few instructions long");
    sock_filter { jf: skip, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would (Documentation/networking/filter.rst), on what it uses.
    fn run(number: u32, architecture: u32, command: u64) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&architecture.to_le_bytes());
        data[24..32].copy_from_slice(&command.to_le_bytes());
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    let from = step.k as usize;
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= step.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                }
                code if code == BPF_RET | BPF_K => return step.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn typing_into_the_terminal_is_refused_by_every_abi() {
        let (x86_64, i386, aarch64, arm) = (0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028);
        let ioctls = [
            (16, x86_64),
            (514, x86_64),
            (0x4000_0000 | 16, x86_64),
            (0x4000_0000 | 514, x86_64),
            (54, i386),
            (29, aarch64),
            (54, arm),
        ];
        for (number, architecture) in ioctls {
            for (command, expect) in [
                (0x5412, REFUSE),
                (0x541c, REFUSE),
                // The kernel cuts the command to 32 bits.
                (0xffff_ffff_0000_5412, REFUSE),
                (0x1_0000_541c, REFUSE),
                // TCGETS, TIOCGWINSZ, and what only ends like the ones that are meant.
                (0x5401, SECCOMP_RET_ALLOW),
                (0x5413, SECCOMP_RET_ALLOW),
                (0x1_5412, SECCOMP_RET_ALLOW),
                (0x5412_0000_0000, SECCOMP_RET_ALLOW),
            ] {
                assert_eq!(
                    run(number, architecture, command),
                    expect,
                    "{architecture:#x} {number} {command:#x}"
                );
            }
        }
        // Other calls with such an argument, and numbers that are ioctl's in another ABI only.
        for (number, architecture) in
            [(0, x86_64), (54, x86_64), (29, x86_64), (16, i386), (514, i386), (16, aarch64), (29, arm)]
        {
            assert_eq!(run(number, architecture, 0x5412), SECCOMP_RET_ALLOW, "{architecture:#x} {number}");
        }
        // An ABI that nobody thought of.
        assert_eq!(run(0, 0x8000_0016, 0), REFUSE);
    }
}
