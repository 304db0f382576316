//! The maps, and the few ways in which programs use them. Pinned by the daemon, so that settings,
//! flows and sockets outlive it.

use core::ptr;

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, FlowKey, KernelFlow, SocketState},
    names,
    rules::{UdpKey, UdpPorts},
    settings::Settings,
    tally::Tally,
    verdict::{self, Denial},
};
use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_sock,
    },
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

// Not least recently used: a flow that is pushed out would be one that nobody recorded. The daemon takes
// out those that never came to the listener, and while it is full connections are refused.
#[map]
static FLOWS: HashMap<FlowKey, KernelFlow> = HashMap::with_max_entries(names::FLOWS_CAPACITY, 0);

// A question that is pushed out is refused by the daemon, and asked again by its resolver.
#[map]
static ASKERS: LruHashMap<FlowKey, KernelFlow> = LruHashMap::with_max_entries(names::ASKERS_CAPACITY, 0);

#[map]
static HOST: HashMap<[u8; 16], u32> = HashMap::with_max_entries(names::HOST_CAPACITY, 0);

#[map]
static UDP: LpmTrie<UdpKey, UdpPorts> = LpmTrie::with_max_entries(names::UDP_CAPACITY, BPF_F_NO_PREALLOC);

#[map]
static NAMESPACES: HashMap<u64, u32> = HashMap::with_max_entries(names::NAMESPACES_CAPACITY, 0);

#[map]
static TALLIES: HashMap<Tally, u64> = HashMap::with_max_entries(names::TALLIES_CAPACITY, 0);

#[map]
static PEERS: LruHashMap<FlowKey, Endpoint> = LruHashMap::with_max_entries(names::PEERS_CAPACITY, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(names::EVENTS_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(verdict::COUNTERS, 0);

#[btf_map]
static SOCKETS: Sockets = Sockets::new();

/// The settings in force.
///
/// # Errors
/// [`Denial::NoListener`]: unreachable with an array of one entry, and refused all the same.
#[inline(always)]
pub(crate) fn settings() -> Result<&'static Settings, Denial> {
    SETTINGS.get(0).ok_or(Denial::NoListener)
}

/// The session of the calling task: its ancestor one level below the guarded cgroup, 0 for a task in
/// that one itself.
#[inline(always)]
pub(crate) fn session() -> u64 {
    match SETTINGS.get(0) {
        // SAFETY: no pointers; a level below the task's own gives 0.
        Some(settings) => unsafe { bpf_get_current_ancestor_cgroup_id(settings.depth as i32 + 1) },
        None => 0,
    }
}

/// The declaration of socket storage that a socket hands on: one that accept(2) gives was made by the
/// kernel and passed no hook, so it has what its listener had. aya's own type cannot say so.
#[repr(C)]
struct Sockets {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields speak to the loader through their types; nothing reads them.
unsafe impl Sync for Sockets {}

impl Sockets {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

#[inline(always)]
fn sockets() -> *mut aya_ebpf::cty::c_void {
    ptr::from_ref(&SOCKETS).cast_mut().cast()
}

/// The state of a socket, if it has any.
#[inline(always)]
pub(crate) fn socket<'a>(sk: *mut bpf_sock) -> Option<&'a mut SocketState> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` came from a context; the helper gives null or a value that lives as long as the
    // socket, which outlives the program. Another CPU may write it at the same time: plain integers.
    unsafe { bpf_sk_storage_get(sockets(), sk.cast(), ptr::null_mut(), 0).cast::<SocketState>().as_mut() }
}

/// The state of a socket, zero where it had none.
///
/// # Errors
/// [`Denial::NoFlow`] when the kernel gives no memory for it.
#[inline(always)]
pub(crate) fn socket_or_new<'a>(sk: *mut bpf_sock) -> Result<&'a mut SocketState, Denial> {
    if sk.is_null() {
        return Err(Denial::NoFlow);
    }
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as in `socket`.
    let state = unsafe { bpf_sk_storage_get(sockets(), sk.cast(), ptr::null_mut(), create) };
    // SAFETY: as in `socket`.
    unsafe { state.cast::<SocketState>().as_mut() }.ok_or(Denial::NoFlow)
}

/// Marks a socket as made under guard: programs of the guarded cgroup see no others. Its subflows are
/// those of a guarded MPTCP socket too, which the kernel makes past socket(2).
#[inline(always)]
pub(crate) fn vouch(sk: *mut bpf_sock) {
    if let Ok(state) = socket_or_new(sk)
        && state.guarded == 0
    {
        state.owner = session();
        state.guarded = 1;
    }
}

/// Ties a flow to the agent's end of it, replacing what an earlier connection left there.
///
/// # Errors
/// [`Denial::NoFlow`] when the map takes no entry; then there is none at all, not an older one.
#[inline(always)]
pub(crate) fn tie(key: &FlowKey, flow: &KernelFlow) -> Result<(), Denial> {
    if FLOWS.insert(key, flow, 0).is_err() {
        let _absent = FLOWS.remove(key);
        return Err(Denial::NoFlow);
    }
    // Only getpeername(2) on MPTCP reads this: without it such a socket shows the listener.
    if PEERS.insert(key, flow.original, 0).is_err() {
        let _absent = PEERS.remove(key);
    }
    Ok(())
}

/// Where the connection from this local address was meant to go.
#[inline(always)]
pub(crate) fn peer(key: &FlowKey) -> Option<Endpoint> {
    PEERS.get_ptr(key).map(|peer| {
        // SAFETY: a live map value; LRU may reuse it meanwhile, which can only change what
        // getpeername(2) shows.
        unsafe { *peer }
    })
}

/// Counts an outcome, a denial or a passage as a number, of a hook.
#[inline(always)]
pub(crate) fn count(hook: Hook, outcome: u8) {
    add(verdict::counter(hook, outcome));
}

/// Counts an event that the ring buffer had no room for.
#[inline(always)]
pub(crate) fn count_lost() {
    add(verdict::LOST);
}

#[inline(always)]
fn add(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a live value of this CPU.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}
