//! The maps, and the few ways in which programs use them. Pinned by the daemon, so that settings,
//! flows and sockets outlive it.

use core::{arch::asm, ptr};

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, FlowKey, KernelFlow, SocketState},
    names,
    rules::{UdpKey, UdpPorts},
    settings::Settings,
    subject::{NOBODY, Task},
    tally::{Booked, Tally, window},
    verdict::{self, Denial},
};
use aya_ebpf::{
    bindings::{
        BPF_EXIST, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type,
        bpf_sock,
    },
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};

use crate::emit;

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
static BOOKS: HashMap<Booked, u64> = HashMap::with_max_entries(names::BOOKS_CAPACITY, 0);

#[map]
static TALLIES: HashMap<Tally, u64> = HashMap::with_max_entries(names::TALLIES_CAPACITY, 0);

#[map]
static PEERS: LruHashMap<FlowKey, Endpoint> = LruHashMap::with_max_entries(names::PEERS_CAPACITY, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(names::EVENTS_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(verdict::COUNTERS, 0);

/// Socket storage as BTF declares it. What accept(2) gives inherits the state of the listener
/// (`BPF_F_CLONE`, which aya's own type does not set): it was made under guard by the same session.
#[repr(C)]
struct Sockets {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
    max_entries: *const [i32; 0],
    key: *const i32,
    value: *const SocketState,
}

// SAFETY: a declaration for the loader; the pointers are never followed.
unsafe impl Sync for Sockets {}

#[btf_map]
static SOCKETS: Sockets = Sockets {
    r#type: ptr::null(),
    map_flags: ptr::null(),
    max_entries: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
};

/// The settings in force.
///
/// # Errors
/// [`Denial::NoListener`]: unreachable with an array of one entry, and refused all the same.
#[inline(always)]
pub(crate) fn settings() -> Result<&'static Settings, Denial> {
    SETTINGS.get(0).ok_or(Denial::NoListener)
}

/// Levels of the hierarchy at which the guarded cgroup is looked for.
const LEVELS: i32 = 32;

/// The session of the calling task: its ancestor one level below the guarded cgroup, 0 for a task in
/// that one itself, [`NOBODY`] for one that is not below it.
///
/// The daemon says how deep the guarded cgroup is, which it cannot know where it sees a part of the
/// hierarchy only: then it is looked for.
#[inline(always)]
pub(crate) fn session() -> u64 {
    let Some(settings) = SETTINGS.get(0) else {
        return NOBODY;
    };
    session_by(settings)
}

/// The same of a task that uses a socket whose state is known: mostly it is of the session that made it,
/// which takes half as long to find out. A cgroup stays where it was made, and its id is never another's.
#[inline(always)]
pub(crate) fn session_at(state: Option<&SocketState>) -> u64 {
    let Some(settings) = SETTINGS.get(0) else {
        return NOBODY;
    };
    if let Some(state) = state
        && state.guarded == 1
        && state.owner != 0
        && ancestor(settings.depth as i32 + 1) == state.owner
    {
        return state.owner;
    }
    session_by(settings)
}

#[inline(always)]
fn session_by(settings: &Settings) -> u64 {
    if settings.guarded == 0 {
        return NOBODY;
    }
    let depth = settings.depth as i32;
    if ancestor(depth) == settings.guarded {
        return ancestor(depth + 1);
    }
    for level in 1..LEVELS {
        match ancestor(level) {
            0 => return NOBODY,
            id if id == settings.guarded => return ancestor(level + 1),
            _ => {}
        }
    }
    NOBODY
}

/// Id of the calling task's ancestor cgroup at a level, 0 where it is not that deep.
#[inline(always)]
pub(crate) fn ancestor(level: i32) -> u64 {
    // SAFETY: no pointers.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
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

/// The state of a socket that a hook of the guarded cgroup sees, `state` where it has one, which is how
/// it is known to be of the guarded: marked here where no socket(2) made it (subflows of MPTCP) or one before the programs were
/// there.
///
/// # Errors
/// [`Denial::NoFlow`] when the kernel gives no memory for it.
#[inline(always)]
pub(crate) fn socket_or_new<'a>(
    state: Option<&'a mut SocketState>,
    sk: *mut bpf_sock,
    session: u64,
    netns: u64,
) -> Result<&'a mut SocketState, Denial> {
    let state = match state {
        Some(state) => state,
        None => any_socket_or_new(sk)?,
    };
    if state.guarded == 0 {
        state.guarded = 1;
        state.inner = 1;
        state.owner = session;
        state.flow.netns = netns;
    }
    Ok(state)
}

/// The state of any socket, which says nothing of where it was made.
///
/// # Errors
/// [`Denial::NoFlow`] when the kernel gives no memory for it.
#[inline(always)]
pub(crate) fn any_socket_or_new<'a>(sk: *mut bpf_sock) -> Result<&'a mut SocketState, Denial> {
    if sk.is_null() {
        return Err(Denial::NoFlow);
    }
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as in `socket`.
    let state = unsafe { bpf_sk_storage_get(sockets(), sk.cast(), ptr::null_mut(), create) };
    // SAFETY: as in `socket`.
    unsafe { state.cast::<SocketState>().as_mut() }.ok_or(Denial::NoFlow)
}

/// Marks a socket at its making.
///
/// # Errors
/// [`Denial::NoFlow`] when the kernel gives no memory for it.
#[inline(always)]
pub(crate) fn mark(ctx: *mut bpf_sock, session: u64, netns: u64) -> Result<(), Denial> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the context of the program that runs when a socket is made is the socket.
    let state = unsafe { bpf_sk_storage_get(sockets(), ctx.cast(), ptr::null_mut(), create) };
    // SAFETY: as in `socket`.
    let state = unsafe { state.cast::<SocketState>().as_mut() }.ok_or(Denial::NoFlow)?;
    state.guarded = 1;
    state.owner = session;
    state.flow.netns = netns;
    state.flow.task.session = session;
    Ok(())
}

/// Ties a flow to the agent's end of it. One that is there already is of a connection that never came
/// to the listener, and is counted for the session that made it.
///
/// # Errors
/// [`Denial::NoFlow`] when the map takes no entry; then there is none at all, not an older one.
#[inline(always)]
pub(crate) fn tie(key: &FlowKey, flow: &KernelFlow) -> Result<(), Denial> {
    if FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(());
    }
    // SAFETY: a live map value; the daemon may take it meanwhile, then nothing is replaced below.
    let before = FLOWS
        .get_ptr(key)
        .map(|flow| unsafe { ((*flow).task.session, (*flow).connected_ns, (*flow).original.port) });
    if let Some((session, connected_ns, port)) = before {
        if FLOWS.insert(key, flow, u64::from(BPF_EXIST)).is_ok() {
            count(Hook::SockOps, verdict::REPLACED, session);
            // Questions over TCP are in the same map and in no book.
            if port != verdict::DNS_PORT {
                book(session, connected_ns, verdict::REPLACED);
            }
            return Ok(());
        }
    }
    // Taken meanwhile, or full.
    if FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(());
    }
    let _absent = FLOWS.remove(key);
    Err(Denial::NoFlow)
}

/// Keeps where an inner socket was meant to go for the one that its user holds. Without it that one
/// shows the listener.
#[inline(always)]
pub(crate) fn keep_peer(key: &FlowKey, original: &Endpoint) {
    if PEERS.insert(key, original, 0).is_err() {
        let _absent = PEERS.remove(key);
    }
}

/// Keeps who asked a question.
///
/// # Errors
/// [`Denial::NoFlow`] when the map takes no entry; then there is none at all, not an older one.
#[inline(always)]
pub(crate) fn keep_asker(key: &FlowKey, flow: &KernelFlow, original: &Endpoint) -> Result<(), Denial> {
    let now = emit::boot_ns();
    // The next question of the same asker by the same socket takes far less than another entry.
    if let Some(kept) = ASKERS.get_ptr_mut(key) {
        // SAFETY: a live map value; where LRU reuses it meanwhile, another question names another
        // server, and never another asker.
        unsafe {
            if (*kept).cookie == flow.cookie && is_same(&(*kept).task, &flow.task) {
                (*kept).original = *original;
                (*kept).connected_ns = now;
                return Ok(());
            }
        }
    }
    if ASKERS.insert(key, flow, 0).is_ok()
        && let Some(kept) = ASKERS.get_ptr_mut(key)
    {
        // The stack has no room for a flow; nobody asks for it before the packet is on its way.
        // SAFETY: a live map value; where LRU reuses it meanwhile, another question names another
        // server.
        unsafe {
            (*kept).original = *original;
            (*kept).connected_ns = now;
        }
        return Ok(());
    }
    let _absent = ASKERS.remove(key);
    Err(Denial::NoFlow)
}

/// Whether all is the same but the name, which is a hint.
#[inline(always)]
fn is_same(one: &Task, other: &Task) -> bool {
    one.tid == other.tid
        && one.pid == other.pid
        && one.cgroup == other.cgroup
        && one.session == other.session
        && one.uid == other.uid
        && one.gid == other.gid
}

/// Whether it is one of the host's own addresses.
#[inline(always)]
pub(crate) fn is_host(addr: &[u8; 16]) -> bool {
    HOST.get_ptr(addr).is_some()
}

/// Whether policy lets UDP pass to there.
#[inline(always)]
pub(crate) fn admits_udp(destination: &Endpoint) -> bool {
    UDP.get(Key::new(128, destination.addr)).is_some_and(|ports| ports.has(destination.port))
}

/// Whether the gate has doors in a network namespace besides the daemon's.
#[inline(always)]
pub(crate) fn admits_namespace(netns: u64) -> bool {
    NAMESPACES.get_ptr(netns).is_some()
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

/// Counts what the audit log is to hold: a connection tied to the listener, or a refusal as it is reported.
/// Session and time are those of the flow or event, by which the daemon finds the same window.
#[inline(always)]
pub(crate) fn book(session: u64, ns: u64, outcome: u8) {
    let key = Booked { session, window: window(ns), outcome: u32::from(outcome) };
    if BOOKS.get_ptr_mut(key).map(increment).is_none() {
        // Another CPU may be quicker: then the entry is there all the same.
        let _there = BOOKS.insert(key, 0, u64::from(BPF_NOEXIST));
        if BOOKS.get_ptr_mut(key).map(increment).is_none() {
            add(verdict::UNBOOKED);
        }
    }
}

/// Counts an outcome, a denial or a passage as a number, of a hook, in all and for the session.
#[inline(always)]
pub(crate) fn count(hook: Hook, outcome: u8, session: u64) {
    add(verdict::counter(hook, outcome));
    let session = if session == NOBODY { 0 } else { session };
    let key = Tally { session, hook: hook as u32, outcome: u32::from(outcome) };
    if tally(&key).is_none() {
        // Another CPU may be quicker: then the entry is there all the same.
        let _there = TALLIES.insert(key, 0, u64::from(BPF_NOEXIST));
        if tally(&key).is_none() {
            add(verdict::UNTALLIED);
        }
    }
}

#[inline(always)]
fn tally(key: &Tally) -> Option<()> {
    TALLIES.get_ptr_mut(key).map(increment)
}

/// Counts an event that the ring buffer had no room for.
#[inline(always)]
pub(crate) fn count_lost() {
    add(verdict::LOST);
}

#[inline(always)]
fn add(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        increment(counter);
    }
}

/// Atomic also where the counter is of this CPU alone: a program may be preempted by another's.
#[inline(always)]
fn increment(counter: *mut u64) {
    // The target has this instruction and no atomic type.
    // SAFETY: a live map value, aligned to eight bytes, that is only ever changed like this.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1_u64, options(nostack));
    }
}
