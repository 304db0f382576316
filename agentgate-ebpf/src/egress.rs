//! Egress: what leaves a guarded socket, by loopback too: a host's own addresses are routed there.
//!
//! The judge of connected UDP, of which connect(2) refuses little, and the net under the other
//! hooks. It holds what they cannot see: sockets of other kinds that the kernel makes for a caller,
//! source routes that send a packet elsewhere than the judged address, and answers to strangers who
//! connected to a guarded process. A refused packet is EPERM to its sender (net/ipv4/ip_output.c,
//! `ip_finish_output`). Packets that are forwarded, or written through AF_PACKET, do not come here,
//! nor does the copy of an IPv4 packet to a group that is for this host itself (`ip_mc_output`).

use core::mem::MaybeUninit;

use agentgate_common::{
    event::Hook,
    flow::{Endpoint, FlowKey, INET, INET6, SocketState},
    subject::NOBODY,
    verdict::{self, Denial, Packet, Passage, TCP, UDP},
};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    connect::Bound,
    emit::{self, Socket},
    error::{Refused, outcome},
    facts::OfPacket,
    maps,
};

/// `TCP_SYN_SENT` of include/net/tcp_states.h.
const SYN_SENT: u32 = 2;

/// `ETH_P_IP` of include/uapi/linux/if_ether.h: by what the kernel sends a packet as, whatever it says.
const ETH_IP: u16 = 0x0800;
/// `ETH_P_IPV6` of the same.
const ETH_IPV6: u16 = 0x86dd;
/// Fixed part of an IPv4 header, and the two ports behind it.
const IPV4: usize = 20 + 4;
/// Fixed part of an IPv6 header, and the two ports behind it.
const IPV6: usize = 40 + 4;

#[cgroup_skb(egress)]
pub(crate) fn gate_egress(ctx: SkBuffContext) -> i32 {
    let sender = Sender::of(&ctx);
    // SAFETY: the context is valid while the program runs.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    let stream = verdict::is_local_stream(interface, sender.protocol);
    // Judged when it connected, and counted then.
    if stream && sender.state != SYN_SENT {
        return 1;
    }
    let mut state = maps::socket(sender.sk);
    let session = state.as_ref().map_or(NOBODY, |state| state.owner);
    let own = state.as_ref().is_some_and(|state| state.passage == Passage::Own as u32);
    // By connect(2) alone, which has counted it.
    if stream && !own && sender.is_from_loopback() {
        return 1;
    }
    let mut packet = NOTHING;
    let result = match read(&ctx, &mut packet) {
        Some(()) => {
            packet.interface = interface;
            judge(&ctx, stream.then_some(own), &mut packet, &mut state, session)
        }
        None => Err(Denial::Egress),
    };
    let result = result.map_err(Refused::at(packet.destination));
    maps::count(Hook::Egress, outcome(&result), session);
    match result {
        Ok(_) => 1,
        Err(refused) => {
            tell(&ctx, &sender, state, session, packet.protocol, &refused);
            0
        }
    }
}

/// Judges the first packet of a connection within the host, of which is said whether it passed as one to
/// the own session, or any other packet.
#[inline(always)]
fn judge(
    ctx: &SkBuffContext,
    stream: Option<bool>,
    packet: &mut Packet,
    state: &mut Option<&mut SocketState>,
    session: u64,
) -> Result<Passage, Denial> {
    let settings = maps::settings()?;
    if let Some(state) = state {
        packet.netns = state.flow.netns;
        packet.asked = meant(state, packet).port != 0;
    }
    if let Some(own) = stream {
        let facts = OfPacket::new(ctx, TCP, None, session);
        verdict::source(settings, &packet.source.addr, packet.netns, &facts)?;
        if own {
            return verdict::opening(settings, &packet.destination, &facts);
        }
        return Ok(Passage::Direct);
    }
    let facts = OfPacket::new(ctx, UDP, Some(&packet.source), session);
    let passage = verdict::packet(settings, packet, &facts)?;
    if let (Passage::Resolver, Some(state)) = (passage, state) {
        let key = FlowKey {
            netns: packet.netns,
            local: packet.source,
            towards: packet.destination.port,
            protocol: UDP as u16,
        };
        maps::keep_asker(&key, &state.flow, meant(state, packet))?;
    }
    Ok(passage)
}

/// Where the last question of a packet's family was meant to go.
#[inline(always)]
fn meant<'a>(state: &'a SocketState, packet: &Packet) -> &'a Endpoint {
    if packet.destination.family == INET { &state.sent4 } else { &state.sent6 }
}

/// A packet of which nothing is known. Not all zeros: the compiler would fill it byte by byte.
const NOTHING: Packet = Packet {
    source: Endpoint { addr: verdict::map_v4([0; 4]), port: 0, family: INET },
    destination: Endpoint { addr: verdict::map_v4([0; 4]), port: 0, family: INET },
    protocol: 0,
    plain: false,
    interface: 0,
    asked: false,
    netns: 0,
};

/// The socket of a packet; null and zeros where it cannot hold state.
struct Sender {
    sk: *mut bpf_sock,
    family: u32,
    kind: u32,
    protocol: u32,
    state: u32,
}

impl Sender {
    #[inline(always)]
    fn of(ctx: &SkBuffContext) -> Self {
        // SAFETY: the context is valid while the program runs; all arms of the union are the pointer.
        let any: *mut bpf_sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
        // SAFETY: not null; the helper gives null for a socket that is not a full one.
        let sk = if any.is_null() { any } else { unsafe { bpf_sk_fullsock(any) } };
        if sk.is_null() {
            return Self { sk, family: 0, kind: 0, protocol: 0, state: 0 };
        }
        // SAFETY: a full socket, which lives as long as its packet; volatile keeps the loads four
        // bytes wide.
        let (family, kind, protocol, state) = unsafe {
            (
                (&raw const (*sk).family).read_volatile(),
                (&raw const (*sk).type_).read_volatile(),
                (&raw const (*sk).protocol).read_volatile(),
                (&raw const (*sk).state).read_volatile(),
            )
        };
        Self { sk, family, kind, protocol, state }
    }

    /// Whether a connection is made from a loopback address, as nearly all to the gate are. Its socket
    /// knows, at less cost than the packet.
    #[inline(always)]
    fn is_from_loopback(&self) -> bool {
        if self.sk.is_null() {
            return false;
        }
        let Bound { ip4, ip6, .. } = Bound::of(self.sk);
        if self.family == u32::from(INET) {
            return ip4.to_ne_bytes()[0] == 127;
        }
        verdict::is_loopback(&verdict::bytes(ip6))
    }
}

/// Reads the headers; the kernel shows this hook a packet from its network header on.
#[inline(always)]
fn read(ctx: &SkBuffContext, packet: &mut Packet) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let version = unsafe { (*ctx.skb.skb).protocol };
    match u16::from_be(version as u16) {
        ETH_IP => {
            let h = load::<IPV4>(ctx, 0)?;
            let [first, ..] = h;
            let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff;
            packet.protocol = u32::from(h[9]);
            // Five words of header: no options, so no source route and the ports in their place.
            packet.plain = first == 0x45 && fragment == 0;
            packet.source.addr = verdict::map_v4([h[12], h[13], h[14], h[15]]);
            packet.destination.addr = verdict::map_v4([h[16], h[17], h[18], h[19]]);
            if packet.plain {
                ports(packet, [h[20], h[21], h[22], h[23]]);
            }
        }
        ETH_IPV6 => {
            let h = load::<IPV6>(ctx, 0)?;
            // Extension headers, routing headers among them, show as another protocol.
            packet.protocol = u32::from(h[6]);
            packet.plain = h[0] >> 4 == 6;
            packet.source.addr = verdict::bytes([word(&h, 8), word(&h, 12), word(&h, 16), word(&h, 20)]);
            packet.destination.addr =
                verdict::bytes([word(&h, 24), word(&h, 28), word(&h, 32), word(&h, 36)]);
            packet.source.family = INET6;
            packet.destination.family = INET6;
            ports(packet, [h[40], h[41], h[42], h[43]]);
        }
        _ => return None,
    }
    Some(())
}

/// Four bytes of a header as they stand.
#[inline(always)]
fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Takes the ports, which stay 0 for a protocol that has none there.
#[inline(always)]
fn ports(packet: &mut Packet, [a, b, c, d]: [u8; 4]) {
    if packet.protocol == TCP || packet.protocol == UDP {
        packet.source.port = u16::from_be_bytes([a, b]);
        packet.destination.port = u16::from_be_bytes([c, d]);
    }
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    // Not zeroed before: the compiler would do so byte by byte.
    let mut header = MaybeUninit::<Header<N>>::uninit();
    // SAFETY: the buffer is ours and of the length given.
    let result =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, header.as_mut_ptr().cast(), N as u32) };
    // SAFETY: written in full where the helper says that it was.
    (result == 0).then(|| unsafe { header.assume_init() }.0)
}

/// Aligned, so that words are read as such.
#[repr(C, align(4))]
struct Header<const N: usize>([u8; N]);

/// Reports the first refused packet of a socket: of a connected UDP socket in the name of who connected
/// it.
#[inline(always)]
fn tell(
    ctx: &SkBuffContext,
    sender: &Sender,
    state: Option<&mut SocketState>,
    session: u64,
    protocol: u32,
    refused: &Refused,
) {
    let state = match state {
        Some(state) => state,
        None => match maps::socket_or_new(None, sender.sk, session, 0) {
            Ok(state) => state,
            Err(_) => return,
        },
    };
    if state.reported != 0 {
        return;
    }
    state.reported = 1;
    let raw = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs.
    let (cookie, cgroup) = unsafe { (bpf_get_socket_cookie(raw.cast()), bpf_skb_cgroup_id(raw)) };
    let socket = Socket { cookie, family: sender.family, kind: sender.kind, protocol };
    let known = state.flow.task.session;
    emit::report(Hook::Egress, known, socket, refused, |task| {
        *task = state.flow.task;
        task.cgroup = cgroup;
    });
}
