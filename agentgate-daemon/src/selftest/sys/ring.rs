//! io_uring(7) without a library: one ring, one request at a time.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::process::descriptor_of;

/// Operations of linux/io_uring.h.
pub(in crate::selftest) const CONNECT: u8 = 16;
/// `IORING_OP_SEND`.
pub(in crate::selftest) const SEND: u8 = 26;
/// `IORING_OP_SOCKET`, since Linux 5.19.
pub(in crate::selftest) const SOCKET: u8 = 45;

const SQ_RING: libc::off_t = 0;
const CQ_RING: libc::off_t = 0x800_0000;
const ENTRIES: libc::off_t = 0x1000_0000;
const ENTRY_BYTES: usize = 64;
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// A ring of a few entries.
#[derive(Debug)]
pub(in crate::selftest) struct Ring {
    fd: OwnedFd,
    submissions: Mapping,
    completions: Mapping,
    entries: Mapping,
    parameters: Parameters,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, reserved, address (2).
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved, address (2).
    cq: [u32; 10],
}

/// One request: `struct io_uring_sqe` as far as it is used.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::selftest) struct Request<'a> {
    pub(in crate::selftest) operation: u8,
    pub(in crate::selftest) fd: i32,
    /// Address and length of what the operation reads.
    pub(in crate::selftest) bytes: &'a [u8],
    /// `len` where it is not that of the bytes.
    pub(in crate::selftest) len: u32,
    pub(in crate::selftest) offset: u64,
}

impl Ring {
    /// io_uring_setup(2) and its three mappings.
    pub(in crate::selftest) fn new() -> io::Result<Self> {
        let mut parameters = Parameters::default();
        // SAFETY: the kernel fills the parameters, which have its layout.
        let fd =
            descriptor_of(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, &raw mut parameters) })?;
        let sq = parameters.sq[6] as usize + parameters.sq_entries as usize * 4;
        let cq = parameters.cq[5] as usize + parameters.cq_entries as usize * 16;
        Ok(Self {
            submissions: Mapping::new(&fd, SQ_RING, sq)?,
            completions: Mapping::new(&fd, CQ_RING, cq)?,
            entries: Mapping::new(&fd, ENTRIES, parameters.sq_entries as usize * ENTRY_BYTES)?,
            fd,
            parameters,
        })
    }

    /// Does one request and gives its result.
    pub(in crate::selftest) fn run(&mut self, request: &Request<'_>) -> io::Result<i32> {
        let mut entry = [0_u8; ENTRY_BYTES];
        entry[0] = request.operation;
        entry[4..8].copy_from_slice(&request.fd.to_ne_bytes());
        entry[8..16].copy_from_slice(&request.offset.to_ne_bytes());
        if !request.bytes.is_empty() {
            entry[16..24].copy_from_slice(&(request.bytes.as_ptr() as u64).to_ne_bytes());
        }
        entry[24..28].copy_from_slice(&request.len.to_ne_bytes());
        let mask = self.submissions.load(self.parameters.sq[2])?;
        let tail = self.submissions.load(self.parameters.sq[1])?;
        let slot = tail & mask;
        self.entries.write(slot as usize * ENTRY_BYTES, &entry)?;
        self.submissions.store(self.parameters.sq[6] + slot * 4, slot)?;
        self.submissions.store(self.parameters.sq[1], tail.wrapping_add(1))?;
        // SAFETY: the ring's own call; what the entry points to lives until the completion is waited for.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1_u32,
                1_u32,
                GET_EVENTS,
                std::ptr::null::<u8>(),
                0_usize,
            )
        };
        if entered < 0 {
            return Err(io::Error::last_os_error());
        }
        let head = self.completions.load(self.parameters.cq[0])?;
        let at = self.parameters.cq[5] + (head & self.completions.load(self.parameters.cq[2])?) * 16;
        let result = self.completions.load(at + 8)?.cast_signed();
        self.completions.store(self.parameters.cq[0], head.wrapping_add(1))?;
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }
}

/// Memory shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, offset: libc::off_t, bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, bytes })
    }

    fn word(&self, offset: u32) -> io::Result<&AtomicU32> {
        let offset = offset as usize;
        if offset + 4 > self.bytes || !offset.is_multiple_of(4) {
            return Err(io::Error::other("outside the ring"));
        }
        // SAFETY: within the mapping and aligned; both sides use it as an atomic word.
        Ok(unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    fn load(&self, offset: u32) -> io::Result<u32> {
        Ok(self.word(offset)?.load(Ordering::Acquire))
    }

    fn store(&self, offset: u32, value: u32) -> io::Result<()> {
        self.word(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() > self.bytes {
            return Err(io::Error::other("outside the ring"));
        }
        // SAFETY: within the mapping; the kernel reads it only after the tail has moved.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nothing points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
