//! The side towards the origin: certificates are verified, always, against the system's roots and
//! an extra file where one is configured, and against revocation lists where there are some.

mod explain;
mod identity;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _};

pub use explain::explain;
use identity::Identity;
pub use identity::{ClientCertificate, IdentityError};

use super::Offer;
use crate::{model::Host, policy::HostPattern};

/// Why origins cannot be verified as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum OriginTlsError {
    #[error("no system root certificate could be read: {0}")]
    System(String),
    #[error("{path}: {detail}", path = path.display())]
    File { path: PathBuf, detail: String },
    #[error("revocation lists: {0}")]
    Revocation(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// How origins are to be verified, and what is shown to them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM file of roots besides the system's.
    pub extra_roots: Option<PathBuf>,
    pub revocation: Revocation,
    pub client_certificates: Vec<ClientCertificate>,
}

/// Revocation lists and how strictly they are read.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// Files of lists, PEM or DER; none: nothing is checked.
    pub lists: Vec<PathBuf>,
    /// The issuers' certificates are checked as well.
    pub chain: bool,
    /// A certificate of which no list says anything is refused.
    pub refuse_unknown: bool,
    /// A list that should have been replaced does not count.
    pub refuse_expired: bool,
}

/// Names per offering whose sessions are kept for resumption; each takes some KiB.
const RESUMED_NAMES: usize = 256;
/// rustls keeps this many tickets a name, and is told the number of tickets.
const TICKETS_PER_NAME: usize = 8;

/// One configuration for each of what can be offered by ALPN.
#[derive(Clone, Debug)]
struct ByOffer {
    none: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
    http1_first: Arc<ClientConfig>,
}

impl ByOffer {
    fn offering(&self, offer: Offer) -> &Arc<ClientConfig> {
        match offer {
            Offer::None => &self.none,
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
            Offer::Both => &self.both,
            Offer::Http1First => &self.http1_first,
        }
    }

    /// One configuration per offering over `base`; all share its verifier.
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

/// How origins are spoken to.
#[derive(Clone, Debug)]
pub struct OriginTls {
    /// As nobody.
    bare: ByOffer,
    identities: Arc<[Identity]>,
}

impl OriginTls {
    /// Reads everything that `settings` name.
    ///
    /// # Errors
    /// [`OriginTlsError`]: no roots at all, or a file that is unreadable or does not hold what it should.
    pub fn load(settings: &Settings) -> Result<Self, OriginTlsError> {
        let provider = Arc::new(super::provider());
        let verifier = verifier(settings, &provider)?;
        let builder = || -> Result<_, rustls::Error> {
            Ok(ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()?
                .with_webpki_verifier(verifier.clone()))
        };
        let identities = settings
            .client_certificates
            .iter()
            .map(|of| {
                let pattern = HostPattern::parse(&of.pattern).map_err(IdentityError::from)?;
                let (chain, key) = identity::load(of)?;
                let config = builder()?.with_client_auth_cert(chain, key).map_err(|error| {
                    let (certificate, key) = (of.certificate.clone(), of.key.clone());
                    IdentityError::Pair { certificate, key, detail: error.to_string() }
                })?;
                Ok(Identity { pattern, configs: ByOffer::over(&config) })
            })
            .collect::<Result<_, OriginTlsError>>()?;
        Ok(Self { bare: ByOffer::over(&builder()?.with_no_client_auth()), identities })
    }

    /// The configuration that offers `offer` to `host` at `port`, with the client certificate that is
    /// set up for it. A session is resumed only for the same name, offer and client certificate.
    #[must_use]
    pub fn towards(&self, host: &Host, port: u16, offer: Offer) -> &Arc<ClientConfig> {
        let closest = self
            .identities
            .iter()
            .filter_map(|identity| Some((identity.closeness(host, port)?, identity)))
            .max_by_key(|(closeness, _)| *closeness);
        closest.map_or(&self.bare, |(_, identity)| &identity.configs).offering(offer)
    }
}

fn verifier(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, OriginTlsError> {
    let roots = Arc::new(roots(settings.extra_roots.as_deref())?);
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    let Revocation { lists, chain, refuse_unknown, refuse_expired } = &settings.revocation;
    for path in lists {
        builder = builder.with_crls(revocation_lists(path)?);
    }
    if !chain {
        builder = builder.only_check_end_entity_revocation();
    }
    if !refuse_unknown {
        builder = builder.allow_unknown_revocation_status();
    }
    if *refuse_expired {
        builder = builder.enforce_revocation_expiration();
    }
    builder.build().map_err(|error| OriginTlsError::Revocation(error.to_string()))
}

fn roots(extra: Option<&Path>) -> Result<RootCertStore, OriginTlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, _ignored) = roots.add_parsable_certificates(native.certs);
    if let Some(path) = extra {
        add_file(&mut roots, path)?;
    } else if added == 0 {
        let why = native.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(OriginTlsError::System(if why.is_empty() {
            "none found; install ca-certificates".into()
        } else {
            why
        }));
    }
    Ok(roots)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), OriginTlsError> {
    let fail = |detail: String| OriginTlsError::File { path: path.to_owned(), detail };
    let pem = std::fs::read(path).map_err(|error: io::Error| fail(error.to_string()))?;
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(fail("holds no certificate (PEM)".to_owned())) } else { Ok(()) }
}

/// The lists of a file: any number in PEM, or one in DER.
fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, OriginTlsError> {
    let fail = |detail: String| OriginTlsError::File { path: path.to_owned(), detail };
    let (_mode, bytes) = identity::read(path).map_err(|error| fail(error.to_string()))?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(error.to_string()))?;
    // DER begins with a SEQUENCE, which no PEM file does.
    if lists.is_empty() && bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.into()]);
    }
    if lists.is_empty() { Err(fail("holds no revocation list (PEM or DER)".to_owned())) } else { Ok(lists) }
}

#[cfg(test)]
mod tests;
