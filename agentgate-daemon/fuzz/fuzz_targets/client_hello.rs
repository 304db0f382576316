//! The ClientHello of a connection's first bytes.

#![no_main]

use agentgate::sniff::client_hello::{InvalidHello, Parsed, parse};
use libfuzzer_sys::fuzz_target;

/// Of several things that are wrong, what is named depends on what has come; that it is wrong does not.
fn verdict(bytes: &[u8]) -> Parsed {
    match parse(bytes) {
        Parsed::Invalid(_) => Parsed::Invalid(InvalidHello::Malformed),
        said => said,
    }
}

fuzz_target!(|bytes: &[u8]| agentgate_fuzz::prefixes_agree(bytes, &Parsed::Incomplete, verdict));
