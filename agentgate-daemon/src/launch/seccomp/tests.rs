//! The filter, interpreted as the kernel would.

use super::*;

/// Runs the filter as the kernel would (Documentation/networking/filter.rst), on what it uses.
fn run(number: u32, architecture: u32, [first, second]: [u64; 2]) -> u32 {
    run_three(number, architecture, [first, second, 0])
}

fn run_three(number: u32, architecture: u32, arguments: [u64; 3]) -> u32 {
    let mut data = [0_u8; 64];
    data[..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&architecture.to_le_bytes());
    data[16..24].copy_from_slice(&arguments[0].to_le_bytes());
    data[24..32].copy_from_slice(&arguments[1].to_le_bytes());
    data[32..40].copy_from_slice(&arguments[2].to_le_bytes());
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

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const X32: u32 = 0x4000_0000;

#[test]
fn typing_into_the_terminal_is_refused_by_every_abi() {
    let ioctls = [
        (16, X86_64),
        (514, X86_64),
        (X32 | 16, X86_64),
        (X32 | 514, X86_64),
        (54, I386),
        (29, AARCH64),
        (54, ARM),
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
                run(number, architecture, [0, command]),
                expect,
                "{architecture:#x} {number} {command:#x}"
            );
        }
    }
    // Other calls with such an argument, and numbers that are ioctl's in another ABI only.
    for (number, architecture) in
        [(0, X86_64), (54, X86_64), (29, X86_64), (16, I386), (514, I386), (16, AARCH64), (29, ARM)]
    {
        let given = run(number, architecture, [0, 0x5412]);
        assert_eq!(given, SECCOMP_RET_ALLOW, "{architecture:#x} {number}");
    }
    // An ABI that nobody thought of.
    assert_eq!(run(0, 0x8000_0016, [0, 0]), REFUSE);
}

/// socket(2) and socketpair(2).
const SOCKETS: [(u32, u32); 10] = [
    (41, X86_64),
    (53, X86_64),
    (X32 | 41, X86_64),
    (X32 | 53, X86_64),
    (359, I386),
    (360, I386),
    (198, AARCH64),
    (199, AARCH64),
    (281, ARM),
    (288, ARM),
];

#[test]
fn an_old_packet_socket_is_refused_by_every_abi() {
    // The kernel makes an AF_PACKET socket of AF_INET with SOCK_PACKET.
    const FLAGS: [u64; 5] = [0, 0o2_000_000, 0o4000, 0o2_004_000, 0xffff_ffff_0000_0000];
    for (number, architecture) in SOCKETS {
        for kind in 0..16_u64 {
            let expect = if kind == 10 { NO_FAMILY } else { SECCOMP_RET_ALLOW };
            for (family, flags) in [1, 2, 10, 16].into_iter().flat_map(|f| FLAGS.map(|flags| (f, flags))) {
                let given = run(number, architecture, [family, kind | flags]);
                assert_eq!(given, expect, "{architecture:#x} {number} {family} {kind} {flags:#x}");
            }
        }
    }
}

#[test]
fn sockets_are_of_four_families_in_every_abi() {
    for (number, architecture) in SOCKETS {
        // As linux/socket.h numbers them, and a few that are not families.
        for family in (0..64_u64).chain([255, 0xffff_ffff]) {
            let expect = if [1, 2, 10, 16].contains(&family) { SECCOMP_RET_ALLOW } else { NO_FAMILY };
            // The kernel cuts the family to 32 bits.
            for high in [0, 1 << 32, 0xffff_ffff_0000_0000] {
                let given = run(number, architecture, [family | high, 3]);
                assert_eq!(given, expect, "{architecture:#x} {number} {family}");
            }
        }
    }
    // connect(2), bind(2) and accept(2) on what there is.
    for (number, architecture) in [(42, X86_64), (49, X86_64), (43, X86_64), (362, I386), (203, AARCH64)] {
        assert_eq!(run(number, architecture, [40, 0]), SECCOMP_RET_ALLOW, "{architecture:#x} {number}");
    }
}

#[test]
fn what_hides_the_family_behind_a_pointer_makes_no_socket() {
    for architecture in [I386, ARM] {
        for (call, expect) in [
            (1, NO_FAMILY),
            (8, NO_FAMILY),
            (0x1_0000_0001, NO_FAMILY),
            // setsockopt, whose option is behind the pointer too.
            (14, REFUSE),
            // connect, bind, send, sendmsg.
            (3, SECCOMP_RET_ALLOW),
            (2, SECCOMP_RET_ALLOW),
            (9, SECCOMP_RET_ALLOW),
            (16, SECCOMP_RET_ALLOW),
        ] {
            assert_eq!(run(102, architecture, [call, 0]), expect, "{architecture:#x} {call}");
        }
    }
    // getuid(2) of x86_64.
    assert_eq!(run(102, X86_64, [1, 0]), SECCOMP_RET_ALLOW);
}

#[test]
fn options_are_not_set_by_calls_that_the_programs_do_not_see() {
    // SO_BROADCAST, SO_REUSEPORT, IP_FREEBIND, IP_ADD_MEMBERSHIP, MCAST_JOIN_GROUP, IPV6_JOIN_GROUP.
    let swallowed = [(1, 6), (1, 15), (0, 15), (0, 35), (41, 42), (41, 20)];
    // SO_REUSEADDR, SO_KEEPALIVE, TCP_NODELAY, IP_TOS, IPV6_V6ONLY.
    let set = [(1, 2), (1, 9), (6, 1), (0, 1), (41, 26)];
    for (number, architecture) in [(366, I386), (X32 | 541, X86_64), (294, ARM)] {
        for high in [0, 0xffff_ffff_0000_0000] {
            for (level, name) in swallowed {
                let answer = run_three(number, architecture, [3, high | level, high | name]);
                assert_eq!(answer, DONE, "{architecture:#x} {level} {name}");
            }
            for (level, name) in set {
                let answer = run_three(number, architecture, [3, high | level, high | name]);
                assert_eq!(answer, SECCOMP_RET_ALLOW, "{architecture:#x} {level} {name}");
            }
        }
    }
    // Of 64 bit programs the cgroup's own program is asked.
    for (number, architecture) in [(54, X86_64), (208, AARCH64)] {
        assert_eq!(run_three(number, architecture, [3, 1, 6]), SECCOMP_RET_ALLOW);
    }
}

#[test]
fn there_is_no_io_uring_in_any_abi() {
    for number in [425, 426, 427] {
        for architecture in [X86_64, I386, AARCH64, ARM] {
            assert_eq!(run(number, architecture, [8, 0]), NO_CALL, "{architecture:#x} {number}");
        }
        assert_eq!(run(X32 | number, X86_64, [8, 0]), NO_CALL);
    }
    // open_tree, clone3 of the same neighbourhood.
    for number in [424, 428, 435] {
        assert_eq!(run(number, X86_64, [8, 0]), SECCOMP_RET_ALLOW, "{number}");
    }
}

#[test]
fn debuggers_keep_their_calls() {
    // ptrace, process_vm_readv, process_vm_writev, pidfd_getfd.
    for number in [101, 310, 311, 438] {
        assert_eq!(run(number, X86_64, [16, 1]), SECCOMP_RET_ALLOW, "{number}");
    }
}
