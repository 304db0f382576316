//! The root CA and the leaves that origins present, good and bad.

use std::{fmt, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::world::{Presents, Site};

/// The common name of the root: what an untouched client sees as the issuer.
pub const NAME: &str = "Fake Internet Root";

/// A CA made for one run.
pub struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

impl Root {
    /// A fresh key (P-256) and certificate.
    ///
    /// # Errors
    /// When the key cannot be generated.
    pub fn generate() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pem = issuer.pem();
        Ok(Self { issuer, pem })
    }

    /// The certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn server_config(
        &self,
        site: &Site,
        certificate: Presents,
        h2: bool,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let (chain, key) = self.leaf(site, certificate).with_context(|| site.name)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if h2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Arc::new(config))
    }

    fn leaf(
        &self,
        site: &Site,
        certificate: Presents,
    ) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut names = vec![site.name.to_owned()];
        names.extend(site.ips().map(|ip| ip.to_string()));
        if certificate == Presents::WrongName {
            names = vec!["somebody-else.example".to_owned()];
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, site.name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Python's default verification wants the key identifier (X509_STRICT).
        params.use_authority_key_identifier_extension = true;
        if certificate == Presents::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate()?;
        let leaf = match certificate {
            Presents::SelfSigned => params.self_signed(&key)?,
            Presents::Valid | Presents::Expired | Presents::WrongName => {
                params.signed_by(&key, &self.issuer)?
            }
        };
        Ok((vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}
