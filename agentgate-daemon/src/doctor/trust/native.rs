//! This program as a client: rustls, with the roots that the environment names as other programs in Rust
//! find them, or with the gate's alone.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use crate::model::{OWN_ADDRESS, OWN_NAME};

/// For each step.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest answer that is read, in bytes.
const LONGEST: u64 = 64 << 10;
/// What the gate's answer says, which nobody else's does.
const MARK: &str = "x-agentgate-rule: gate:own_name";

/// Whom it trusts.
#[derive(Debug)]
pub(super) enum Trusting<'a> {
    /// The roots in this file.
    Only(&'a Path),
    /// Those that `SSL_CERT_FILE` names, else the system's.
    AsConfigured,
}

/// Why there was no answer of the gate's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NativeError {
    #[error("{0}: {1}")]
    File(String, String),
    #[error("{OWN_NAME} has no address: {0}")]
    Name(io::Error),
    #[error("{OWN_NAME} is at {0} here, not at {OWN_ADDRESS}")]
    Elsewhere(SocketAddr),
    #[error("connecting to {OWN_NAME}: {0}")]
    Connect(io::Error),
    #[error("TLS with {OWN_NAME}: {0}")]
    Tls(String),
    #[error("what answers at {OWN_NAME} is not the gate")]
    NotTheGate,
}

/// Has the gate answer.
///
/// # Errors
/// [`NativeError`].
pub(super) fn ask(trusting: &Trusting<'_>) -> Result<(), NativeError> {
    let config = config(trusting)?;
    let mut addresses = (OWN_NAME, 443).to_socket_addrs().map_err(NativeError::Name)?;
    let address = addresses.next().ok_or_else(|| NativeError::Name(io::ErrorKind::NotFound.into()))?;
    if address.ip() != OWN_ADDRESS {
        return Err(NativeError::Elsewhere(address));
    }
    let mut tcp = TcpStream::connect_timeout(&address, DEADLINE).map_err(NativeError::Connect)?;
    tcp.set_read_timeout(Some(DEADLINE)).map_err(NativeError::Connect)?;
    tcp.set_write_timeout(Some(DEADLINE)).map_err(NativeError::Connect)?;
    let tls = |error: &dyn std::fmt::Display| NativeError::Tls(error.to_string());
    let name = ServerName::try_from(OWN_NAME).map_err(|error| tls(&error))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| tls(&error))?;
    let mut stream = Stream::new(&mut connection, &mut tcp);
    let question = format!("GET / HTTP/1.1\r\nHost: {OWN_NAME}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).map_err(|error| tls(&error))?;
    let mut answer = Vec::new();
    match stream.take(LONGEST).read_to_end(&mut answer) {
        // Closed without a word: what came is judged.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(tls(&error)),
        Ok(_) | Err(_) => {}
    }
    let marked = String::from_utf8_lossy(&answer).to_ascii_lowercase().contains(MARK);
    if marked { Ok(()) } else { Err(NativeError::NotTheGate) }
}

fn config(trusting: &Trusting<'_>) -> Result<ClientConfig, NativeError> {
    let mut roots = RootCertStore::empty();
    match trusting {
        Trusting::Only(path) => {
            let fail = |error: String| NativeError::File(path.display().to_string(), error);
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))? {
                let certificate = certificate.map_err(|error| fail(error.to_string()))?;
                roots.add(certificate).map_err(|error| fail(error.to_string()))?;
            }
        }
        Trusting::AsConfigured => {
            // Some of the system's may be ones that rustls does not take; so programs do it.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| NativeError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
