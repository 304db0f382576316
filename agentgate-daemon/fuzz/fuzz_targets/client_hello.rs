//! The ClientHello of a connection's first bytes.

#![no_main]

use agentgate::sniff::client_hello::{Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| agentgate_fuzz::prefixes_agree(bytes, &Parsed::Incomplete, parse));
