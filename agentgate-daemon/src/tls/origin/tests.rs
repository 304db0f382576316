//! Origins' certificates, good and bad.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{CertificateError, HandshakeKind, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority with its directory.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn names(names: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

impl Authority {
    fn new() -> Self {
        let mut params = names(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Issuers are told apart by name.
        params.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        fs::write(dir.path().join("roots.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { chain: vec![certificate.der().clone()], key }
    }

    /// A list that revokes `serials`, due for replacement in `next`.
    fn revoke(&self, serials: &[u64], next: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn settings(&self) -> Settings {
        Settings { extra_roots: Some(self.dir.path().join("roots.pem")), ..Settings::default() }
    }

    fn tls(&self) -> OriginTls {
        OriginTls::load(&self.settings()).unwrap()
    }

    /// What a server that shows `leaf` is told by, and whether it wants a certificate in turn.
    fn server(&self, leaf: Leaf, wants: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots(self.settings().extra_roots.as_deref()).unwrap());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
        let builder =
            if wants { builder.with_client_cert_verifier(verifier) } else { builder.with_no_client_auth() };
        let key = PrivateKeyDer::Pkcs8(leaf.key.serialize_der().into());
        let mut config = builder.with_single_cert(leaf.chain, key).unwrap();
        config.alpn_protocols = Offer::Both.names();
        Arc::new(config)
    }
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

/// How the handshake with `server` as `name` went: its kind, and what was settled by ALPN.
async fn handshake(
    tls: &OriginTls,
    server: &Arc<ServerConfig>,
    name: &str,
    offer: Offer,
) -> io::Result<(HandshakeKind, Option<Vec<u8>>)> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = TlsAcceptor::from(server.clone());
    let serving = async move {
        if let Ok(mut stream) = server.accept(far).await {
            let _gone = stream.write_all(b"x").await;
            let _gone = stream.shutdown().await;
        }
    };
    let config = tls.towards(&host(name), 443, offer).clone();
    let client = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(config).connect(name, near).await?;
        // With TLS 1.3 a server's refusal and its tickets come with the first read.
        stream.read_u8().await?;
        let session = stream.get_ref().1;
        Ok((session.handshake_kind().unwrap(), session.alpn_protocol().map(<[u8]>::to_vec)))
    };
    tokio::join!(client, serving).0
}

/// The sentence for a certificate that was refused.
async fn refusal(tls: &OriginTls, server: &Arc<ServerConfig>, name: &str) -> String {
    let error = handshake(tls, server, name, Offer::Both).await.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else { panic!("{name}: {error}") };
    explain(why, &host(name))
}

#[tokio::test]
async fn says_what_is_wrong_with_a_certificate() {
    let ours = Authority::new();
    let tls = ours.tls();
    let mut expired = names(&["a.example"]);
    expired.not_after = date_time_ymd(2021, 3, 4);
    let mut future = names(&["a.example"]);
    future.not_before = date_time_ymd(2080, 3, 4);
    let mut client_only = names(&["a.example"]);
    client_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let alone = KeyPair::generate().unwrap();
    let alone =
        Leaf { chain: vec![names(&["a.example"]).self_signed(&alone).unwrap().der().clone()], key: alone };
    let mut authority = names(&["a.example"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let many =
        names(&["b.example", "*.c.example", "d.example", "e.example", "f.example", "g.example", "h.example"]);
    let rows = [
        (ours.leaf(expired), "the certificate of a.example expired on 2021-03-04 00:00 UTC, "),
        (ours.leaf(future), "the certificate of a.example is not valid before 2080-03-04 00:00 UTC; "),
        (ours.leaf(names(&["b.example"])), "the certificate is not for a.example but for b.example"),
        (
            ours.leaf(many),
            "the certificate is not for a.example but for b.example, *.c.example, d.example, e.example, f.example and 2 more",
        ),
        (ours.leaf(client_only), "the certificate of a.example is not one for a server"),
        (
            Authority::new().leaf(names(&["a.example"])),
            "nobody whom this host trusts has signed the certificate of a.example: it is self-signed, or its issuer",
        ),
        (
            alone,
            "nobody whom this host trusts has signed the certificate of a.example: it is self-signed, or its issuer",
        ),
        (ours.leaf(authority), "the certificate of a.example is an authority's and not a server's"),
    ];
    for (leaf, expect) in rows {
        let said = refusal(&tls, &ours.server(leaf, false), "a.example").await;
        assert!(said.starts_with(expect), "{said}\n  instead of {expect}");
        assert!(!said.contains('\n'));
    }
    assert!(explain(&CertificateError::BadSignature, &host("a.example")).contains("forged or damaged"));
}

#[tokio::test]
async fn what_is_revoked_is_refused_as_it_is_set_up() {
    let (ours, other) = (Authority::new(), Authority::new());
    let serial = |serial: u64| {
        let mut params = names(&["a.example"]);
        params.serial_number = Some(SerialNumber::from(serial));
        ours.server(ours.leaf(params), false)
    };
    let (revoked, good) = (serial(66), serial(67));
    let load = |lists: Vec<PathBuf>, chain, refuse_unknown, refuse_expired| {
        let revocation = Revocation { lists, chain, refuse_unknown, refuse_expired };
        OriginTls::load(&Settings { revocation, ..ours.settings() })
    };
    let list = ours.file("revoked.pem", &ours.revoke(&[1, 66], 2090), 0o644);
    for (chain, refuse_unknown) in [(false, false), (false, true), (true, true)] {
        let tls = load(vec![list.clone()], chain, refuse_unknown, true).unwrap();
        let said = refusal(&tls, &revoked, "a.example").await;
        assert_eq!(said, "the certificate of a.example has been revoked by its issuer");
        handshake(&tls, &good, "a.example", Offer::Both).await.unwrap();
    }
    // Another issuer's list says nothing of this one's.
    let foreign = ours.file("foreign.pem", &other.revoke(&[66], 2090), 0o644);
    handshake(&load(vec![foreign.clone()], false, false, true).unwrap(), &revoked, "a.example", Offer::Both)
        .await
        .unwrap();
    let strict = load(vec![foreign.clone()], false, true, true).unwrap();
    assert!(refusal(&strict, &good, "a.example").await.contains("origin.crl_unknown is deny"));
    // Both at once, one of them in DER.
    let der = CertificateRevocationListDer::from_pem_file(&list).unwrap();
    let der_file = ours.dir.path().join("revoked.crl");
    fs::write(&der_file, &der).unwrap();
    let both = load(vec![foreign, der_file], false, true, true).unwrap();
    assert!(refusal(&both, &revoked, "a.example").await.contains("revoked"));
    // One that should have been replaced.
    let old = ours.file("old.pem", &ours.revoke(&[66], 2022), 0o644);
    let lenient = load(vec![old.clone()], false, false, false).unwrap();
    assert!(refusal(&lenient, &revoked, "a.example").await.contains("revoked"));
    handshake(&lenient, &good, "a.example", Offer::Both).await.unwrap();
    let strict = load(vec![old], false, false, true).unwrap();
    assert!(refusal(&strict, &good, "a.example").await.contains("out of date since 2022-01-01"));
    // Files that hold none.
    let empty = ours.file("empty.pem", "nothing", 0o644);
    let error = load(vec![empty], false, false, false).unwrap_err().to_string();
    assert!(error.ends_with("holds no revocation list (PEM or DER)"), "{error}");
    assert!(load(vec![ours.dir.path().join("absent")], false, false, false).is_err());
}

#[tokio::test]
async fn sessions_are_resumed_for_the_same_name_and_offer_only() {
    let ours = Authority::new();
    let tls = ours.tls();
    let server = ours.server(ours.leaf(names(&["a.example", "b.example"])), false);
    let kind = async |name, offer| handshake(&tls, &server, name, offer).await.unwrap();
    assert_eq!(kind("a.example", Offer::Both).await, (HandshakeKind::Full, Some(b"h2".to_vec())));
    assert_eq!(kind("a.example", Offer::Both).await, (HandshakeKind::Resumed, Some(b"h2".to_vec())));
    assert_eq!(kind("a.example", Offer::Http1).await, (HandshakeKind::Full, Some(b"http/1.1".to_vec())));
    assert_eq!(kind("a.example", Offer::None).await, (HandshakeKind::Full, None));
    assert_eq!(kind("b.example", Offer::Both).await.0, HandshakeKind::Full);
    assert_eq!(kind("b.example", Offer::Both).await.0, HandshakeKind::Resumed);
}

#[tokio::test]
async fn shows_the_closest_client_certificate_to_whom_it_is_for() {
    let ours = Authority::new();
    let mut params = names(&["agent"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ours.issuer).unwrap().pem();
    let of = |pattern: &str, mode| ClientCertificate {
        pattern: pattern.to_owned(),
        certificate: ours.file("client.pem", &certificate, 0o644),
        key: ours.file("client.key", &key.serialize_pem(), mode),
    };
    let load = |certificates: Vec<ClientCertificate>| {
        OriginTls::load(&Settings { client_certificates: certificates, ..ours.settings() })
    };
    let tls = load(vec![of("*.corp.example", 0o600)]).unwrap();
    let server = ours.server(ours.leaf(names(&["a.corp.example", "corp.example", "acorp.example"])), true);
    handshake(&tls, &server, "a.corp.example", Offer::Both).await.unwrap();
    for stranger in ["corp.example", "acorp.example"] {
        assert!(handshake(&tls, &server, stranger, Offer::Both).await.is_err(), "{stranger}");
    }
    let patterns =
        ["*", "*.example", "*.corp.example", "a.corp.example", "*.corp.example:8443", "a.corp.example:22"];
    let tls = load(patterns.iter().map(|pattern| of(pattern, 0o600)).collect()).unwrap();
    let closest = |name: &str, port| {
        let chosen = tls.towards(&host(name), port, Offer::Both);
        let at = tls.identities.iter().position(|identity| Arc::ptr_eq(&identity.configs.both, chosen));
        at.map(|at| patterns[at])
    };
    for (name, port, expect) in [
        ("other.test", 443, "*"),
        ("192.0.2.1", 443, "*"),
        ("b.example", 443, "*.example"),
        ("x.corp.example", 443, "*.corp.example"),
        ("x.corp.example", 8443, "*.corp.example:8443"),
        ("a.corp.example", 443, "a.corp.example"),
        ("a.corp.example", 8443, "a.corp.example"),
        ("a.corp.example", 22, "a.corp.example:22"),
    ] {
        assert_eq!(closest(name, port), Some(expect), "{name}:{port}");
    }

    let readable = load(vec![of("*", 0o640)]).unwrap_err().to_string();
    assert!(readable.contains("others than the owner can read this key (mode 640)"), "{readable}");
    let pattern = load(vec![of("https://x", 0o600)]).unwrap_err().to_string();
    assert!(pattern.starts_with("origin.client_certificates: "), "{pattern}");
    let other = ours.file("other.key", &KeyPair::generate().unwrap().serialize_pem(), 0o600);
    let mismatch = load(vec![ClientCertificate { key: other, ..of("*", 0o600) }]).unwrap_err().to_string();
    assert!(mismatch.contains("client.pem and "), "{mismatch}");
}
