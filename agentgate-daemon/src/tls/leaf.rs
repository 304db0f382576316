//! Leaves: one certificate per name, minted when first asked for, kept in a bounded cache, all with
//! one key that lives as long as the process (a leaf key of its own would double the cost).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Ca, ca::set_validity};
use crate::model::Host;

/// Names kept; about 2 KiB each.
const CAPACITY: usize = 4096;
/// Days a leaf is valid. Short enough for every client's limit on certificate lifetimes.
const VALID_DAYS: i64 = 30;
/// A leaf is minted anew after this many seconds, long before it expires.
const REUSE_SECONDS: i64 = 24 * 3600;

/// A leaf could not be minted.
#[derive(Debug, thiserror::Error)]
#[error("no certificate for {host}: {source}")]
pub struct MintError {
    pub host: Host,
    #[source]
    pub source: rcgen::Error,
}

/// Mints and keeps leaves.
#[derive(Debug)]
pub struct Leaves {
    ca: Arc<Ca>,
    key: KeyPair,
    signer: Arc<dyn rustls::sign::SigningKey>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// With the second since 1970 at which it was minted.
    by_host: HashMap<Host, (i64, Arc<CertifiedKey>)>,
    /// Oldest first: what is evicted.
    order: VecDeque<Host>,
}

impl Leaves {
    /// An empty cache over `ca`, with a fresh P-256 key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(ca: Arc<Ca>) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = any_ecdsa_type(&der).map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
        Ok(Self { ca, key, signer, cache: Mutex::default() })
    }

    /// The authority behind the leaves.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The leaf for `host`, from the cache or minted (about 12 µs).
    ///
    /// # Errors
    /// [`MintError`] where the name cannot stand in a certificate.
    pub fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, MintError> {
        let now = jiff::Timestamp::now().as_second();
        {
            let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((minted, leaf)) = cache.by_host.get(host)
                && (0..REUSE_SECONDS).contains(&(now - minted))
            {
                return Ok(leaf.clone());
            }
        }
        let leaf = Arc::new(self.mint(host).map_err(|source| MintError { host: host.clone(), source })?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.by_host.insert(host.clone(), (now, leaf.clone())).is_none() {
            cache.order.push_back(host.clone());
            if cache.order.len() > CAPACITY
                && let Some(oldest) = cache.order.pop_front()
            {
                cache.by_host.remove(&oldest);
            }
        }
        Ok(leaf)
    }

    fn mint(&self, host: &Host) -> Result<CertifiedKey, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host.as_ip() {
            Some(ip) => SanType::IpAddress(ip),
            None => SanType::DnsName(host.as_str().try_into()?),
        }];
        let mut name = DistinguishedName::new();
        // RFC 5280: a common name has at most 64 characters; the alternative name is what counts.
        name.push(DnType::CommonName, host.as_str().chars().take(64).collect::<String>());
        params.distinguished_name = name;
        params.use_authority_key_identifier_extension = true; // OpenSSL's strict mode wants it
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, 1, VALID_DAYS);
        let certificate = params.signed_by(&self.key, self.ca.issuer())?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], self.signer.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Leaves {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(&dir.path().join("ca.crt"), &dir.path().join("ca.key")).unwrap();
        Leaves::new(Arc::new(ca)).unwrap()
    }

    #[test]
    fn verifies_against_the_authority_for_names_and_addresses() {
        let leaves = leaves();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(leaves.ca().der().clone()).unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .build()
        .unwrap();
        for host in ["api.example.com", "203.0.113.7", "2001:db8::1", "xn--bcher-kva.example"] {
            let leaf = leaves.leaf(&Host::parse(host).unwrap()).unwrap();
            let name = rustls_pki_types::ServerName::try_from(host).unwrap();
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                verifier.as_ref(),
                &leaf.cert[0],
                &[],
                &name,
                &[],
                rustls_pki_types::UnixTime::now(),
            )
            .unwrap_or_else(|error| panic!("{host}: {error}"));
        }
    }

    #[test]
    fn keeps_at_most_its_capacity() {
        let leaves = leaves();
        let first = Host::parse("h0.example").unwrap();
        let leaf = leaves.leaf(&first).unwrap();
        assert!(Arc::ptr_eq(&leaf, &leaves.leaf(&first).unwrap()));
        for n in 1..=CAPACITY {
            leaves.leaf(&Host::parse(&format!("h{n}.example")).unwrap()).unwrap();
        }
        let cache = leaves.cache.lock().unwrap();
        assert_eq!(cache.by_host.len(), CAPACITY);
        assert_eq!(cache.order.len(), CAPACITY);
        assert!(!cache.by_host.contains_key(&first));
    }
}
