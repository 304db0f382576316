//! Looking up and removing an entry of a map in one step, which aya does not offer for hash maps.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for this command")]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::Pod;

/// Of include/uapi/linux/bpf.h, enum bpf_cmd; for hash maps since Linux 5.14.
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;

/// The arguments of the command in `union bpf_attr`.
#[repr(C)]
struct Attributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Takes an entry out of a hash map: between a lookup and a removal a program could put another in its
/// place, which would be lost.
///
/// # Errors
/// What the kernel says, but for an entry that is not there.
///
/// # Safety
/// The map must have keys and values of these types.
pub(super) unsafe fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attributes = Attributes {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are as long as said, the key is read and the value written by as many bytes
    // as the map's types have, which the caller vouches for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_AND_DELETE_ELEM,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        // SAFETY: the kernel has written it, and any bytes are a valid value of a plain type.
        return Ok(Some(unsafe { value.assume_init() }));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::NotFound => Ok(None),
        error => Err(error),
    }
}
