//! The side towards the origin: certificates are verified, always, against the system's roots and
//! an extra file where one is configured.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// The roots could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("no system root certificate could be read: {0}")]
    System(String),
    #[error("{path}: {detail}")]
    Extra { path: PathBuf, detail: String },
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// How origins are spoken to: one configuration for each of what can be offered by ALPN.
#[derive(Clone, Debug)]
pub struct OriginTls {
    both: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl OriginTls {
    /// The configuration that offers HTTP/2 and HTTP/1.1, or HTTP/1.1 alone.
    #[must_use]
    pub fn offering(&self, http2: bool) -> &Arc<ClientConfig> {
        if http2 { &self.both } else { &self.http1 }
    }
}

/// Reads the roots. Sessions are resumed.
///
/// # Errors
/// [`RootsError`]: no roots at all, or an extra file that is unreadable or holds no certificate.
pub fn client_config(extra: Option<&Path>) -> Result<OriginTls, RootsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, _ignored) = roots.add_parsable_certificates(native.certs);
    if let Some(path) = extra {
        add_file(&mut roots, path)?;
    } else if added == 0 {
        let why = native.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(RootsError::System(if why.is_empty() {
            "none found; install ca-certificates".into()
        } else {
            why
        }));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, b"h2".to_vec());
    Ok(OriginTls { both: Arc::new(config), http1 })
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let fail = |detail: String| RootsError::Extra { path: path.to_owned(), detail };
    let pem = std::fs::read(path).map_err(|error: io::Error| fail(error.to_string()))?;
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(fail("holds no certificate (PEM)".to_owned())) } else { Ok(()) }
}
