//! TLS of a flow, as bytes and back.

use super::{
    bytes,
    decode::owned,
    fields::{Fields, Malformed, number as read},
    number, text,
};
use crate::model::Tls;

pub(super) fn put(out: &mut Vec<u8>, tls: &Tls) {
    maybe(out, 1, tls.sni.as_deref());
    text(out, 2, &tls.ja4);
    for offered in &tls.offered {
        bytes(out, 3, offered.as_bytes());
    }
    number(out, 4, tls.ech.into());
    maybe(out, 5, tls.version.as_deref());
    maybe(out, 6, tls.cipher.as_deref());
    maybe(out, 7, tls.alpn.as_deref());
    number(out, 8, tls.resumed.into());
    maybe(out, 9, tls.origin_version.as_deref());
    number(out, 10, tls.origin_resumed.into());
}

fn maybe(out: &mut Vec<u8>, tag: u8, value: Option<&str>) {
    if let Some(value) = value {
        bytes(out, tag, value.as_bytes());
    }
}

pub(super) fn tls(payload: &[u8]) -> Result<Tls, Malformed> {
    let mut tls = Tls::default();
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => tls.sni = Some(owned(payload)?),
            (2, payload) => tls.ja4 = owned(payload)?,
            (3, payload) => tls.offered.push(owned(payload)?),
            (4, payload) => tls.ech = read(payload)? == 1,
            (5, payload) => tls.version = Some(owned(payload)?),
            (6, payload) => tls.cipher = Some(owned(payload)?),
            (7, payload) => tls.alpn = Some(owned(payload)?),
            (8, payload) => tls.resumed = read(payload)? == 1,
            (9, payload) => tls.origin_version = Some(owned(payload)?),
            (10, payload) => tls.origin_resumed = read(payload)? == 1,
            _ => {}
        }
    }
    Ok(tls)
}
