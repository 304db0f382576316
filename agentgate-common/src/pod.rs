//! Plain bytes: the map types are marked as such for aya, and addresses are read as words. Layout tests
//! live here too.
#![expect(
    unsafe_code,
    reason = "aya's Pod is an unsafe trait; each type below is repr(C) without padding, as arrays are"
)]

/// The same sixteen bytes. As one step and not byte by byte, of which the compiler makes calls and loops
/// for the BPF target.
#[inline(always)]
pub(crate) const fn address(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: of one size, and any bytes are valid.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

/// The reverse.
#[inline(always)]
pub(crate) const fn words(address: [u8; 16]) -> [u32; 4] {
    // SAFETY: of one size, and any bits are valid.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(address) }
}

#[cfg(feature = "user")]
mod user {
    use crate::{
        event::KernelEvent,
        flow::{Endpoint, FlowKey, KernelFlow, SocketState},
        rules::UdpPorts,
        settings::Settings,
        tally::{Booked, Tally},
    };

    // SAFETY: repr(C), integers and byte arrays only, no padding (tested below), any bytes are valid.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelFlow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelEvent {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SocketState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Booked {}
    // SAFETY: as above.
    unsafe impl aya::Pod for UdpPorts {}
}

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use crate::{
        event::KernelEvent,
        flow::{Endpoint, FlowKey, KernelFlow, SocketState},
        rules::UdpPorts,
        settings::Settings,
        subject::Task,
        tally::{Booked, Tally},
    };

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Endpoint>(), 16 + 2 + 2);
        assert_eq!(size_of::<FlowKey>(), 8 + size_of::<Endpoint>() + 2 + 2);
        assert_eq!(size_of::<Task>(), 8 + 8 + 4 * 4 + 16);
        assert_eq!(size_of::<KernelFlow>(), 8 * 3 + size_of::<Task>() + size_of::<Endpoint>() + 4);
        assert_eq!(size_of::<SocketState>(), size_of::<KernelFlow>() + 2 * size_of::<Endpoint>() + 4 * 6 + 8);
        assert_eq!(
            size_of::<KernelEvent>(),
            8 + 8 + size_of::<Task>() + size_of::<Endpoint>() + 2 * 3 + 1 + 1 + 4
        );
        assert_eq!(size_of::<Settings>(), 8 + 8 + 4 + 2 * 3 + 2 * 8 + 2 * 32 + 2 * 3);
        assert_eq!(size_of::<Tally>(), 16);
        assert_eq!(size_of::<Booked>(), 16);
        assert_eq!(size_of::<UdpPorts>(), 64);
    }

    #[test]
    fn offsets() {
        assert_eq!(offset_of!(KernelFlow, original), 72);
        assert_eq!(offset_of!(KernelEvent, hook), 90);
        assert_eq!(offset_of!(Settings, gate_ports), 26);
    }
}
