//! What a connection speaks: HTTP/2's preface, HTTP/1's first words, TLS, or something else.

#![no_main]

use agentgate::sniff::protocol::{HTTP2_PREFACE, Protocol, classify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    agentgate_fuzz::prefixes_agree(bytes, &Protocol::Incomplete, classify);
    let verdict = classify(bytes);
    assert_eq!(verdict == Protocol::Http2, bytes.starts_with(HTTP2_PREFACE));
});
