//! HTTP/1.1 (RFC 9112) as it is on the wire. A head is read strictly, because what two servers read
//! differently is how requests are smuggled, and goes on as the bytes that it came as: case, order and
//! repetition of its fields, reason phrase, framing of the body, trailers.
//!
//! What this does not do: turn one version into another, or join and split what was sent.

pub mod framing;
pub mod head;
pub mod relay;
pub mod through;
pub mod wire;

pub use framing::{BadFraming, Decoder, Framing};
pub use head::{BadHead, RawHead, RequestHead, ResponseHead};
pub use wire::Wire;
