//! The first words of HTTP/1.

#![no_main]

use agentgate::sniff::protocol::{Protocol, classify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let verdict = classify(bytes);
    if verdict == Protocol::Http1 {
        let method = bytes.iter().position(|byte| *byte == b' ').expect("a method and a space");
        assert!((1..=24).contains(&method), "{method}");
        assert_eq!(classify(&bytes[..method + 2]), verdict);
    }
});
