//! Cgroup links: the few bpf(2) calls that aya keeps to itself.
//!
//! A link is created on a cgroup, pinned so that it outlives the daemon, opened again at its pin,
//! asked what it holds, and given another program in place (`BPF_LINK_UPDATE`), which leaves no
//! moment without one.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for links")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

// include/uapi/linux/bpf.h, enum bpf_cmd.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
/// enum bpf_link_type: a link to a cgroup.
const BPF_LINK_TYPE_CGROUP: u32 = 3;
/// Programs on one hook of one cgroup that the kernel admits (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// A hook of a cgroup: enum bpf_attach_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    SetSockOpt = 22,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    /// The hook is the program's own.
    LsmCgroup = 43,
}

/// What a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id of the program.
    pub(super) program: u32,
    /// Id of the cgroup, 0 once the cgroup is gone and the link with it.
    pub(super) cgroup: u64,
}

/// A link on a cgroup. Dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub(super) struct CgroupLink(OwnedFd);

impl CgroupLink {
    /// Attaches a program, beside those that other software has there.
    pub(super) fn create(
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        hook: AttachType,
    ) -> io::Result<Self> {
        let mut attr = words([raw(program), raw(cgroup), hook as u32, 0]);
        bpf_fd(BPF_LINK_CREATE, &mut attr).map(Self)
    }

    /// Opens a pinned link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = terminated(path)?;
        let mut attr = [0; ATTR];
        attr[0] = path.as_ptr() as u64;
        let fd = bpf_fd(BPF_OBJ_GET, &mut attr)?;
        let link = Self(fd);
        link.info()?;
        Ok(link)
    }

    /// Keeps the link beyond this process.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = terminated(path)?;
        let mut attr = [0; ATTR];
        attr[0] = path.as_ptr() as u64;
        attr[1] = u64::from(raw(self.0.as_fd()));
        bpf(BPF_OBJ_PIN, &mut attr).map(drop)
    }

    /// Replaces the program in one step.
    pub(super) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = words([raw(self.0.as_fd()), raw(program), 0, 0]);
        bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program off the cgroup, and has it off when it returns: a link whose last descriptor is
    /// closed is taken off some time later.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut attr = [0; ATTR];
        attr[0] = u64::from(raw(self.0.as_fd()));
        bpf(BPF_LINK_DETACH, &mut attr).map(drop)
    }

    /// What the link holds.
    pub(super) fn info(&self) -> io::Result<LinkInfo> {
        let mut info = [0_u64; 16];
        let mut attr = [0; ATTR];
        attr[0] = word(raw(self.0.as_fd()), 128);
        attr[1] = info.as_mut_ptr() as u64;
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        // struct bpf_link_info: type, id, prog_id as u32, then for a cgroup link its id, aligned.
        let [kind, _id] = halves(info[0]);
        let [program, _padding] = halves(info[1]);
        if kind != BPF_LINK_TYPE_CGROUP {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pin is not a link to a cgroup"));
        }
        Ok(LinkInfo { program, cgroup: info[2] })
    }
}

/// A loaded program by its id.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = words([id, 0, 0, 0]);
    bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr)
}

/// Ids of the programs on a hook of a cgroup itself, not of its parents.
pub(super) fn attached(cgroup: BorrowedFd<'_>, hook: AttachType) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attr = [0; ATTR];
    attr[0] = word(raw(cgroup), hook as u32);
    attr[2] = ids.as_mut_ptr() as u64;
    attr[3] = word(64, 0);
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let [count, _] = halves(attr[3]);
    Ok(ids.into_iter().take(count as usize).collect())
}

/// Size of `union bpf_attr` as used here, in eight-byte words; the rest is zero, as it must be.
const ATTR: usize = 16;

fn bpf(command: libc::c_long, attr: &mut [u64; ATTR]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are ours, as long as said, and every pointer in them names a buffer
    // that the caller keeps alive and that is as long as the command writes.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<[u64; ATTR]>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn bpf_fd(command: libc::c_long, attr: &mut [u64; ATTR]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: these commands give a descriptor that is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Two neighbouring 32-bit fields.
fn word(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn words([a, b, c, d]: [u32; 4]) -> [u64; ATTR] {
    let mut attr = [0; ATTR];
    attr[0] = word(a, b);
    attr[1] = word(c, d);
    attr
}

fn terminated(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
