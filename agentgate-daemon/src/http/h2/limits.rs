//! What a peer may ask of one connection, and how much of its data may be under way.
//!
//! Memory of a connection whose other side does not read is bounded by the connection's window (what was
//! received and not passed on) and by [`SEND_BUFFER`] for each stream (what was passed on and not yet
//! written). A stream's window is what it may have under way within one round trip: it bounds a
//! transfer's speed to distant origins.

use h2::{client, server};

/// Bytes of the client's preface (RFC 9113 3.4).
pub const PREFACE: usize = 24;
/// Most requests that one connection may have under way.
pub const STREAMS: u32 = 100;
/// Streams reset by the peer and not yet seen by us, before the connection is ended (CVE-2023-44487).
const PENDING_RESETS: usize = 64;
/// Streams that a peer made us reset by its errors, before the connection is ended.
const ERROR_RESETS: usize = 256;
/// Streams reset by us whose late frames are ignored, for at most a second.
const LATE: usize = 50;
/// Largest header table that the peer may make us keep.
const HEADER_TABLE: u32 = 4096;
/// Passed on and not yet written, for one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Largest DATA frame that may come. One such fills a TLS record.
const FRAME: u32 = 16 * 1024;

/// Of one agent's stream. It is near, so this is no bound to speed.
const AGENT_STREAM: u32 = 1024 * 1024;
/// Of all streams of an agent's connection.
const AGENT_CONNECTION: u32 = 2 * 1024 * 1024;
/// Of one origin's stream: at a round trip of 50 ms 80 MB/s.
const ORIGIN_STREAM: u32 = 4 * 1024 * 1024;
/// Of all streams of an origin's connection.
const ORIGIN_CONNECTION: u32 = 8 * 1024 * 1024;
/// What DATA frames that are smaller than the memory it takes to keep them may cost until they are read.
const SMALL_FRAMES: usize = 8 * 1024 * 1024;
/// Streams that are opened before the origin has said how many it allows; others wait for that. Agents are
/// told [`STREAMS`] whatever their origin says, so what an origin allows is for us to keep to. What it
/// refuses is lost to agents that do not ask again, and some origins end the whole connection over a refused
/// request's trailers. The words come as soon as the connection stands, mostly before the first request does.
const BEFORE_SETTINGS: usize = 1;

/// For the connection of an agent, whose heads may have `head_bytes`. `websockets` offers Extended
/// CONNECT (RFC 8441).
#[must_use]
pub fn to_agent(head_bytes: usize, websockets: bool) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .max_concurrent_reset_streams(LATE)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .initial_window_size(AGENT_STREAM)
        .initial_connection_window_size(AGENT_CONNECTION)
        .data_frame_budget(SMALL_FRAMES);
    if websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// For the connection to an origin, whose heads may have `head_bytes`.
#[must_use]
pub fn to_origin(head_bytes: usize) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .initial_max_send_streams(BEFORE_SETTINGS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .max_concurrent_reset_streams(LATE)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .initial_window_size(ORIGIN_STREAM)
        .initial_connection_window_size(ORIGIN_CONNECTION)
        .data_frame_budget(SMALL_FRAMES);
    builder
}
