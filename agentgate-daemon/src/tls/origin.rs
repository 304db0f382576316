//! The side towards the origin: certificates are verified, always, against the system's roots and
//! an extra file where one is configured.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::Offer;

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

/// Names per offering whose sessions are kept for resumption; each takes some KiB.
const RESUMED_NAMES: usize = 256;
/// rustls keeps this many tickets a name, and is told the number of tickets.
const TICKETS_PER_NAME: usize = 8;

/// How origins are spoken to: one configuration for each of what can be offered by ALPN.
#[derive(Clone, Debug)]
pub struct OriginTls {
    none: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
    http1_first: Arc<ClientConfig>,
}

impl OriginTls {
    /// The configuration that offers `offer`. A session is resumed only for the same name and offer.
    #[must_use]
    pub fn offering(&self, offer: Offer) -> &Arc<ClientConfig> {
        match offer {
            Offer::None => &self.none,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
            Offer::Both => &self.both,
            Offer::Http1First => &self.http1_first,
        }
    }

    /// One configuration per offer over `base`, which shares its roots.
    fn over(base: &ClientConfig) -> Self {
        let offering = |offer: Offer| {
            let mut config = base.clone();
            config.alpn_protocols = offer.names();
            config.resumption = Resumption::in_memory_sessions(RESUMED_NAMES * TICKETS_PER_NAME);
            Arc::new(config)
        };
        Self {
            none: offering(Offer::None),
            http1: offering(Offer::Http1),
            http2: offering(Offer::Http2),
            both: offering(Offer::Both),
            http1_first: offering(Offer::Http1First),
        }
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
    let base = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(OriginTls::over(&base))
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
