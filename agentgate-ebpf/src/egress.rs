//! Egress: what leaves a guarded socket, by loopback too: a host's own addresses are routed there.
//!
//! The judge of connected UDP, of which connect(2) refuses little, and the net under the other
//! hooks. It holds what they cannot see: sockets of other kinds that the kernel makes for a caller,
//! source routes that send a packet elsewhere than the judged address, and answers to strangers who
//! connected to a guarded process. A refused packet is EPERM to its sender (net/ipv4/ip_output.c,
//! `ip_finish_output`). Packets that are forwarded, or written through AF_PACKET, do not come here,
//! nor does the copy of an IPv4 packet to a group that is for this host itself (`ip_mc_output`).

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, INET, INET6},
    verdict::{self, Denial, Packet, Passage, TCP, UDP},
};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    emit::{self, Socket},
    error::Refused,
    maps,
};

/// Fixed part of an IPv4 header, and the two ports behind it.
const IPV4: usize = 20 + 4;
/// Fixed part of an IPv6 header, and the two ports behind it.
const IPV6: usize = 40 + 4;

#[cgroup_skb(egress)]
pub(crate) fn gate_egress(ctx: SkBuffContext) -> i32 {
    let sender = Sender::of(&ctx);
    match try_leave(&ctx, &sender) {
        Ok(passage) => {
            maps::count(Hook::Egress, passage as u8);
            1
        }
        Err((protocol, refused)) => {
            tell(&ctx, &sender, protocol, &refused);
            0
        }
    }
}

#[inline(always)]
fn try_leave(ctx: &SkBuffContext, sender: &Sender) -> Result<Passage, (u32, Refused)> {
    // SAFETY: the context is valid while the program runs.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    if verdict::is_local_stream(interface, sender.protocol) {
        return Ok(Passage::Direct);
    }
    let unreadable = Refused { destination: Endpoint::default(), denial: Denial::Egress };
    let packet = read(ctx).ok_or((0, unreadable))?;
    let settings = maps::settings().map_err(|_| (packet.protocol, unreadable))?;
    verdict::packet(settings, &packet)
        .map_err(|denial| (packet.protocol, Refused { destination: packet.destination, denial }))
}

/// The socket of a packet; null and zeros where it cannot hold state.
struct Sender {
    sk: *mut bpf_sock,
    family: u32,
    kind: u32,
    protocol: u32,
}

impl Sender {
    #[inline(always)]
    fn of(ctx: &SkBuffContext) -> Self {
        // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
        let any: *mut bpf_sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
        // SAFETY: not null; the helper gives null for a socket that is not a full one.
        let sk = if any.is_null() { any } else { unsafe { bpf_sk_fullsock(any) } };
        if sk.is_null() {
            return Self { sk, family: 0, kind: 0, protocol: 0 };
        }
        // SAFETY: a full socket, which lives as long as its packet; volatile keeps the loads four
        // bytes wide.
        let (family, kind, protocol) = unsafe {
            (
                (&raw const (*sk).family).read_volatile(),
                (&raw const (*sk).type_).read_volatile(),
                (&raw const (*sk).protocol).read_volatile(),
            )
        };
        Self { sk, family, kind, protocol }
    }
}

/// Reads the headers; the kernel shows this hook a packet from its network header on.
#[inline(always)]
fn read(ctx: &SkBuffContext) -> Option<Packet> {
    let [first] = load::<1>(ctx, 0)?;
    match first >> 4 {
        4 => {
            let h = load::<IPV4>(ctx, 0)?;
            let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff;
            let protocol = u32::from(h[9]);
            // Five words of header: no options, so no source route and the port in its place.
            let plain = first == 0x45 && fragment == 0;
            let addr = verdict::map_v4([h[16], h[17], h[18], h[19]]);
            let port = if plain { port(protocol, [h[22], h[23]]) } else { 0 };
            Some(Packet { destination: Endpoint { addr, port, family: INET }, protocol, plain })
        }
        6 => {
            let h = load::<IPV6>(ctx, 0)?;
            // Extension headers, routing headers among them, show as another protocol.
            let protocol = u32::from(h[6]);
            let addr = [
                h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33], h[34], h[35], h[36],
                h[37], h[38], h[39],
            ];
            let port = port(protocol, [h[42], h[43]]);
            Some(Packet { destination: Endpoint { addr, port, family: INET6 }, protocol, plain: true })
        }
        _ => None,
    }
}

/// The destination port, 0 for a protocol that has none there.
#[inline(always)]
fn port(protocol: u32, bytes: [u8; 2]) -> u16 {
    if protocol == TCP || protocol == UDP { u16::from_be_bytes(bytes) } else { 0 }
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is ours and of the length given.
    let result =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

/// Counts every refused packet, reports the first: of a connected UDP socket in the name of who
/// connected it.
#[inline(always)]
fn tell(ctx: &SkBuffContext, sender: &Sender, protocol: u32, refused: &Refused) {
    let raw = ctx.skb.skb;
    let state = match maps::socket_or_new(sender.sk) {
        Ok(state) if state.reported == 0 => state,
        Ok(_) | Err(_) => {
            maps::count(Hook::Egress, refused.denial as u8);
            return;
        }
    };
    state.reported = 1;
    let known = state.flow.task;
    // SAFETY: the context is valid while the program runs.
    let (cookie, cgroup) = unsafe { (bpf_get_socket_cookie(raw.cast()), bpf_skb_cgroup_id(raw)) };
    let socket = Socket { cookie, family: sender.family, kind: sender.kind, protocol };
    emit::report(Hook::Egress, socket, refused, |task| {
        *task = known;
        task.cgroup = cgroup;
    });
}
