//! What the daemon shows to an origin that asks for a client certificate.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::ByOffer;
use crate::{
    model::Host,
    policy::{HostPattern, InvalidPattern, NamePattern},
};

/// Largest file of a certificate, key or revocation list.
const LARGEST: u64 = 64 << 20;

/// A client certificate as it is set up.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Which origins it is shown to, as it was written.
    pub pattern: String,
    /// PEM.
    pub certificate: PathBuf,
    /// PEM; only its owner may read it.
    pub key: PathBuf,
}

/// Why a client certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("origin.client_certificates: {0}")]
    Pattern(#[from] InvalidPattern),
    #[error("{path}: {detail}", path = path.display())]
    File { path: PathBuf, detail: String },
    #[error("{key}: others than the owner can read this key (mode {mode:03o}); run: chmod 600 {key}", key = key.display())]
    KeyReadable { key: PathBuf, mode: u32 },
    #[error("{certificate} and {key}: {detail}", certificate = certificate.display(), key = key.display())]
    Pair { certificate: PathBuf, key: PathBuf, detail: String },
}

/// Whom a certificate is shown to, and the configurations that show it.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) pattern: HostPattern,
    pub(super) configs: ByOffer,
}

impl Identity {
    /// How closely the pattern fits `host` at `port`, `None` where it does not: a name before what is
    /// below a parent, a longer parent before a shorter one, `*` last; its own port before every port.
    pub(super) fn closeness(&self, host: &Host, port: u16) -> Option<(usize, bool)> {
        if self.pattern.port.is_some_and(|only| only != port) {
            return None;
        }
        let closeness = match &self.pattern.name {
            NamePattern::Any => 0,
            NamePattern::Exact(name) => (name == host).then_some(usize::MAX)?,
            NamePattern::Below(parent) => {
                let above = host.as_str().strip_suffix(parent.as_str())?;
                (host.as_ip().is_none() && above.len() > 1 && above.ends_with('.'))
                    .then_some(parent.as_str().len())?
            }
        };
        Some((closeness, self.pattern.port.is_some()))
    }
}

/// The chain and key of `of`.
pub(super) fn load(
    of: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
    let fault = |path: &Path, detail: String| IdentityError::File { path: path.to_owned(), detail };
    let (mode, pem) = read(&of.key).map_err(|error| fault(&of.key, error.to_string()))?;
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyReadable { key: of.key.clone(), mode });
    }
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| fault(&of.key, "holds no private key (PEM)".to_owned()))?;
    let (_mode, pem) = read(&of.certificate).map_err(|error| fault(&of.certificate, error.to_string()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(&of.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(fault(&of.certificate, "holds no certificate (PEM)".to_owned()));
    }
    Ok((chain, key))
}

/// Permissions and contents of the same file.
pub(super) fn read(path: &Path) -> io::Result<(u32, Vec<u8>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file of at most 64 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok((metadata.mode() & 0o777, bytes))
}
