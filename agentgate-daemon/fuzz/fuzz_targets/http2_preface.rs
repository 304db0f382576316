//! What a connection speaks: HTTP/2's preface, HTTP/1's first words, TLS, or something else.

#![no_main]

use agentgate::sniff::{
    InvalidHello,
    protocol::{HTTP2_PREFACE, Protocol, classify},
};
use libfuzzer_sys::fuzz_target;

/// Of several things that are wrong, what is named depends on what has come; that it is wrong does not.
fn kind(bytes: &[u8]) -> Protocol {
    match classify(bytes) {
        Protocol::InvalidTls(_) => Protocol::InvalidTls(InvalidHello::Malformed),
        said => said,
    }
}

fuzz_target!(|bytes: &[u8]| {
    agentgate_fuzz::prefixes_agree(bytes, &Protocol::Incomplete, kind);
    let verdict = classify(bytes);
    assert_eq!(verdict == Protocol::Http2, bytes.starts_with(HTTP2_PREFACE));
});
