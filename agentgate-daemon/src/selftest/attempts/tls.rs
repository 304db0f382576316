//! A TLS client that believes whatever certificate it is shown: an attempt lies about names, and does
//! not care who answers.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::selftest::tried::{At as _, Attempted, Try};

/// As long as any answer is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);

#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection with this server name (none where it is empty), or the reason why there is none.
fn open(
    to: SocketAddr,
    name: &str,
    protocols: &[&[u8]],
) -> io::Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.enable_sni = !name.is_empty();
    let server = if name.is_empty() { "unnamed.invalid" } else { name };
    let server = ServerName::try_from(server.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), server).map_err(io::Error::other)?;
    let stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(StreamOwned::new(connection, stream))
}

/// One HTTP/1 request with this server name and this host.
pub(super) fn request(tried: &mut Try, to: SocketAddr, name: &str, host: &str) -> Attempted {
    let bytes = tried.request(host);
    raw(tried, to, name, &[b"http/1.1"], &bytes)
}

/// Sends bytes over TLS and notes who answers.
pub(super) fn raw(
    tried: &mut Try,
    to: SocketAddr,
    name: &str,
    protocols: &[&[u8]],
    bytes: &[u8],
) -> Attempted {
    let mut stream = open(to, name, protocols).at(&format!("connect to {to}"))?;
    stream.write_all(bytes).at("TLS handshake and write")?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < 16 << 10 {
        match stream.read(&mut part) {
            Ok(length) if length > 0 => answer.extend(part.get(..length).unwrap_or_default()),
            Ok(_) | Err(_) => break,
        }
    }
    tried.heard(&answer);
    Ok(())
}
