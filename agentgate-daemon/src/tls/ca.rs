//! The local certificate authority: made on first start, its key readable by the daemon alone.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// What can be wrong with the authority's files.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{key}: others than the owner can read the CA key (mode {mode:03o}); run: chmod 600 {key}")]
    KeyReadable { key: PathBuf, mode: u32 },
    #[error("{cert} is there but {key} is not: put the key back, or remove the certificate to make a new CA")]
    KeyMissing { cert: PathBuf, key: PathBuf },
    #[error("{path}: {source}")]
    Certificate {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("{path}: the certificate does not belong to the key beside it")]
    Mismatch { path: PathBuf },
}

/// The authority that signs leaves.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive() // never the key
    }
}

impl Ca {
    /// Loads the authority, or makes one (ECDSA P-256, ten years) where there is none.
    ///
    /// # Errors
    /// [`CaError`]: unreadable or unwritable files, a key that others can read, a pair that does
    /// not match. An existing certificate is never replaced.
    pub fn load_or_create(cert: &Path, key: &Path) -> Result<Self, CaError> {
        match (cert.exists(), key.exists()) {
            (true, true) => Self::load(cert, key),
            (true, false) => Err(CaError::KeyMissing { cert: cert.to_owned(), key: key.to_owned() }),
            // A key alone is what a crash between the two writes leaves; nobody trusts it yet.
            (false, _) => Self::create(cert, key),
        }
    }

    fn load(cert: &Path, key: &Path) -> Result<Self, CaError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::File { path, source }
        };
        let mode = fs::metadata(key).map_err(file(key))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CaError::KeyReadable { key: key.to_owned(), mode });
        }
        let key_pem = fs::read_to_string(key).map_err(file(key))?;
        let pem = fs::read_to_string(cert).map_err(file(cert))?;
        let bad = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::Certificate { path, source }
        };
        let key_pair = KeyPair::from_pem(&key_pem).map_err(bad(key))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| bad(cert)(rcgen::Error::CouldNotParseCertificate))?;
        // The public key stands in the certificate as it is in the SubjectPublicKeyInfo.
        let public = key_pair.public_key_raw().to_vec();
        if !der.windows(public.len()).any(|window| window == public) {
            return Err(CaError::Mismatch { path: cert.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key_pair).map_err(bad(cert))?;
        Ok(Self { issuer, pem, der })
    }

    fn create(cert: &Path, key: &Path) -> Result<Self, CaError> {
        let bad = |source| CaError::Certificate { path: cert.to_owned(), source };
        let key_pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(bad)?;
        let params = ca_params(&key_pair);
        let certificate = params.self_signed(&key_pair).map_err(bad)?;
        write_new(key, key_pair.serialize_pem().as_bytes(), 0o600)?;
        write_new(cert, certificate.pem().as_bytes(), 0o644)?;
        tracing::info!(cert = %cert.display(), "made a certificate authority");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(params, key_pair), pem, der })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    // A part of the key in the name keeps two authorities apart in a trust store.
    let id: String = key.public_key_raw().iter().rev().take(4).map(|b| format!("{b:02x}")).collect();
    name.push(DnType::OrganizationName, "agentgate");
    name.push(DnType::CommonName, format!("agentgate CA {id}"));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, 1, 3652);
    params
}

/// Sets the validity from `before` days ago to `after` days ahead, on whole days.
pub(super) fn set_validity(params: &mut CertificateParams, before: i64, after: i64) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |offset: i64| {
        let date = today.saturating_add(jiff::Span::new().days(offset));
        let part = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    params.not_before = day(-before);
    params.not_after = day(after);
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let fail = |source| CaError::File { path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
        let first = Ca::load_or_create(&cert, &key).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        let again = Ca::load_or_create(&cert, &key).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert_eq!(first.der(), again.der());
    }

    #[test]
    fn refuses_a_readable_missing_or_foreign_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
        Ca::load_or_create(&cert, &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Ca::load_or_create(&cert, &key), Err(CaError::KeyReadable { mode: 0o640, .. })));
        fs::remove_file(&key).unwrap();
        assert!(matches!(Ca::load_or_create(&cert, &key), Err(CaError::KeyMissing { .. })));
        write_new(&key, KeyPair::generate().unwrap().serialize_pem().as_bytes(), 0o600).unwrap();
        assert!(matches!(Ca::load_or_create(&cert, &key), Err(CaError::Mismatch { .. })));
    }
}
