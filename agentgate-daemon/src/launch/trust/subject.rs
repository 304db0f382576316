//! The name under which OpenSSL looks for a root in a directory: a hash of its subject
//! (`X509_NAME_hash`), eight digits, a dot and a number.

use aws_lc_rs::digest;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const VISIBLE: u8 = 0x1a;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

/// The hash of the subject of `certificate` (DER); `None` where it is no certificate.
pub(super) fn hash(certificate: &[u8]) -> Option<String> {
    let canonical = canonical(subject(certificate)?)?;
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &canonical);
    let first: [u8; 4] = digest.as_ref().get(..4)?.try_into().ok()?;
    Some(format!("{:08x}", u32::from_le_bytes(first)))
}

/// One element of DER: its tag, its contents, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(d, _)| d.len() <= 4)?;
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, contents, rest)| (contents, rest))
}

/// The contents of the subject's sequence (RFC 5280 4.1).
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, after)) = expect(VERSION, rest) {
        rest = after;
    }
    // Serial number, signature, issuer, validity.
    for _ in 0..4 {
        (_, _, rest) = element(rest)?;
    }
    expect(SEQUENCE, rest).map(|(subject, _)| subject)
}

/// The subject as OpenSSL compares it: texts in UTF-8, in lower case, with single spaces.
fn canonical(mut subject: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while !subject.is_empty() {
        let (set, rest) = expect(SET, subject)?;
        subject = rest;
        let mut attributes = Vec::new();
        let mut left = set;
        while !left.is_empty() {
            let (attribute, rest) = expect(SEQUENCE, left)?;
            left = rest;
            let (kind, kind_contents, value) = element(attribute)?;
            let (tag, contents, _) = element(value)?;
            let mut inner = wrapped(kind, kind_contents);
            match text(tag, contents) {
                Some(text) => inner.extend(wrapped(UTF8, &folded(&text))),
                None => inner.extend(wrapped(tag, contents)),
            }
            attributes.push(wrapped(SEQUENCE, &inner));
        }
        // DER sorts what is in a set.
        attributes.sort();
        out.extend(wrapped(SET, &attributes.concat()));
    }
    Some(out)
}

/// The text of a value, where it is one.
fn text(tag: u8, contents: &[u8]) -> Option<String> {
    let wide = |width: usize| -> Option<String> {
        let code = |unit: &[u8]| unit.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        contents.chunks(width).map(|unit| char::from_u32(code(unit))).collect()
    };
    match tag {
        UTF8 => std::str::from_utf8(contents).ok().map(str::to_owned),
        // T61 is read as Latin-1.
        PRINTABLE | T61 | IA5 | VISIBLE => wide(1),
        BMP => wide(2),
        UNIVERSAL => wide(4),
        _ => None,
    }
}

/// Without spaces around it, single ones inside, ASCII letters in lower case.
fn folded(text: &str) -> Vec<u8> {
    let words: Vec<&str> = text.split(|c: char| c == ' ' || ('\t'..='\r').contains(&c)).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ").to_ascii_lowercase().into_bytes()
}

fn wrapped(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = contents.len();
    if length < 0x80 {
        out.extend(u8::try_from(length));
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
        out.extend(u8::try_from(0x80 | digits.len()));
        out.extend(digits);
    }
    out.extend_from_slice(contents);
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    /// Expected: what `openssl x509 -noout -hash` (3.0) says of a certificate with that subject.
    #[test]
    fn is_what_openssl_makes_of_it() {
        let made = |organisation: DnValue, name: DnValue| {
            let mut params = CertificateParams::default();
            let mut subject = DistinguishedName::new();
            subject.push(DnType::OrganizationName, organisation);
            subject.push(DnType::CommonName, name);
            params.distinguished_name = subject;
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
        let plain = made(utf8("agentgate"), utf8("agentgate CA 0011aabb"));
        assert_eq!(hash(&plain).unwrap(), "98c65367");
        // Neither case, nor spaces, nor the kind of text make another name.
        let odd = made(printable("AgentGate "), utf8(" agentgate   ca 0011AABB"));
        assert_eq!(hash(&odd), hash(&plain));
        assert_ne!(hash(&made(utf8("agentgate"), utf8("agentgate CA 0011aabc"))), hash(&plain));
        let long = made(utf8(&"é".repeat(64)), utf8("x"));
        assert_eq!(hash(&long).unwrap(), "6100a4af");
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        for bytes in [&b""[..], b"0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", b"\x30\x89"] {
            assert_eq!(hash(bytes), None, "{bytes:?}");
        }
    }
}
