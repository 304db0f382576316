//! What `Sec-WebSocket-Extensions` agrees on: nothing that was not offered. Offer and answer are two lines.

#![no_main]

use agentgate::parse::websocket::Extensions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (offered, answered) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if let Ok(agreed) = Extensions::agreed([offered], [answered]) {
        let offers = |name: &[u8]| offered.to_ascii_lowercase().windows(name.len()).any(|part| part == name);
        assert!(agreed.deflate.is_none() || offers(b"permessage-deflate"));
        assert!(!agreed.unknown || !offered.is_empty());
        for bits in agreed.deflate.iter().flat_map(|d| [d.client_max_window_bits, d.server_max_window_bits]) {
            assert!((8..=15).contains(&bits));
        }
    }
    assert_eq!(Extensions::agreed([offered], []), Ok(Extensions::default()));
});
