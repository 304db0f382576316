//! Two authorities for one run: the origin's, and the one that every interceptor but the gate signs by,
//! so that nobody pays for another kind of key.

use std::{fs, path::Path};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::names;

/// Writes `origin-ca.pem`; `origin.pem` and `origin.key`; the same as `untrusted.…` under an authority that
/// nobody trusts; `mitm-ca.pem`, `mitm-ca.key`, and both in one as mitmproxy wants them.
pub(crate) fn make(dir: &Path) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let origin = authority("Bench Origin CA")?;
    write("origin-ca.pem", &origin.pem())?;
    let stranger = authority("Bench Untrusted CA")?;
    for (file, issuer, served) in [
        ("origin", &origin, vec![names::INTERCEPTED.to_owned(), names::RAW.to_owned()]),
        ("untrusted", &stranger, vec![names::UNTRUSTED.to_owned()]),
    ] {
        let key = KeyPair::generate()?;
        let leaf = leaf(served)?.signed_by(&key, issuer)?;
        write(&format!("{file}.pem"), &leaf.pem())?;
        write(&format!("{file}.key"), &key.serialize_pem())?;
    }
    let mitm = authority("Bench Interception CA")?;
    write("mitm-ca.pem", &mitm.pem())?;
    write("mitm-ca.key", &mitm.key().serialize_pem())?;
    write("mitmproxy-ca.pem", &format!("{}{}", mitm.key().serialize_pem(), mitm.pem()))
}

/// A fresh key (P-256) and certificate.
fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// What a leaf for these names says.
pub(crate) fn leaf(names: Vec<String>) -> anyhow::Result<CertificateParams> {
    let common = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())?;
    all.collect::<Result<_, _>>().with_context(|| path.display().to_string())
}

/// The key of a PEM file.
pub(crate) fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| path.display().to_string())
}

/// A store of exactly the roots in a file.
pub(crate) fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate)?;
    }
    anyhow::ensure!(!store.is_empty(), "{} holds no certificate", path.display());
    Ok(store)
}
