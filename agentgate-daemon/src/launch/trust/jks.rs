//! A Java key store of trusted certificates, in the format that every Java since 1.2 reads ("JKS"): the
//! entries in the clear, and a digest over all of it.

use aws_lc_rs::digest;

/// What a store of trusted certificates is called with everywhere; it protects nothing.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// Of an entry: a trusted certificate.
const TRUSTED: u32 = 2;
/// Goes into the digest, with the password before it.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// The store that holds `certificates` (DER), called `agentgate-0` and so on.
#[must_use]
pub(super) fn store(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, MAGIC);
    number(&mut out, VERSION);
    number(&mut out, length(certificates.len()));
    for (at, certificate) in certificates.iter().enumerate() {
        number(&mut out, TRUSTED);
        text(&mut out, &format!("agentgate-{at}"));
        // When it was made, in milliseconds since 1970. Always the same, so that the same certificates give
        // the same file.
        out.extend_from_slice(&0_u64.to_be_bytes());
        text(&mut out, "X.509");
        number(&mut out, length(certificate.len()));
        out.extend_from_slice(certificate);
    }
    let mut digest = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&out);
    out.extend_from_slice(digest.finish().as_ref());
    out
}

fn number(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// As `DataOutput.writeUTF` has it; ours are short and ASCII.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_and_the_digest_that_java_checks() {
        let store = store(&[vec![1, 2, 3]]);
        let head = [
            &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 11][..],
            b"agentgate-0",
            &[0; 8],
            &[0, 5],
            b"X.509",
            &[0, 0, 0, 3, 1, 2, 3],
        ]
        .concat();
        let (body, tail) = store.split_at(head.len());
        assert_eq!(body, head);
        let password: Vec<u8> = "changeit".bytes().flat_map(|byte| [0, byte]).collect();
        let whole = [&password[..], b"Mighty Aphrodite", &head].concat();
        let expect = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &whole);
        assert_eq!(tail, expect.as_ref());
    }
}
