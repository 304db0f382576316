//! Messages to the gate's name server: read, and answered without asking anybody.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(reply) = agentgate::dns::answered_alone(bytes) {
        // A header with the question's number, marked as an answer.
        assert!(reply.len() >= 12 && reply.len() <= 1232, "{}", reply.len());
        assert_eq!(reply[..2], bytes[..2]);
        assert_ne!(reply[2] & 0x80, 0);
    }
});
