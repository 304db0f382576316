//! What a handshake tells, for the record of its connection.

use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use crate::{forward::Dialled, model::Tls, sniff::ClientHello};

/// Longest name of a protocol, and most of them, that a record keeps of an offer.
const LONGEST: usize = 32;
const MOST: usize = 16;

/// What the agent's hello says.
pub(super) fn asked(hello: &ClientHello) -> Tls {
    let shown = |name: &[u8]| {
        name.iter().take(LONGEST).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
    };
    Tls {
        sni: hello.server_name.as_ref().map(ToString::to_string),
        ja4: hello.ja4.clone(),
        offered: hello.alpn.iter().take(MOST).map(|name| shown(name)).collect(),
        ech: hello.ech,
        ..Tls::default()
    }
}

/// What the agent and the gate settled.
pub(super) fn settled(tls: &mut Tls, agent: &CommonState) {
    tls.version = version(agent);
    tls.cipher = agent.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    tls.alpn = agent.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    tls.resumed = resumed(agent);
}

/// What the gate and the origin settled, on the connection made for this one.
pub(super) fn dialled(tls: &mut Tls, dialled: &Dialled) {
    let Some(origin) = dialled.stream.tls() else { return };
    tls.origin_version = version(origin);
    tls.origin_resumed = resumed(origin);
}

fn resumed(session: &CommonState) -> bool {
    session.handshake_kind() == Some(HandshakeKind::Resumed)
}

fn version(session: &CommonState) -> Option<String> {
    let version = session.protocol_version()?;
    let known = [(ProtocolVersion::TLSv1_3, "TLS 1.3"), (ProtocolVersion::TLSv1_2, "TLS 1.2")];
    // rustls settles no other.
    known.into_iter().find(|(number, _)| *number == version).map(|(_, name)| name.to_owned())
}
