//! `[origin]`: revocation, and what the daemon shows to origins that ask who it is.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// `[origin]`: what is asked of origins' certificates besides their being trusted, and the certificates
/// that the daemon itself shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// Files of certificate revocation lists, PEM or DER; none: nothing is asked.
    pub crls: Vec<PathBuf>,
    /// Whose revocation is asked for.
    pub crl_depth: CrlDepth,
    /// Whether a certificate is taken of which no list says anything: its issuer has none here.
    pub crl_unknown: Lenience,
    /// Whether a list still counts that should have been replaced by a newer one.
    pub crl_expired: Lenience,
    /// Certificates that the daemon shows, by host pattern; the most specific one counts.
    pub client_certificates: BTreeMap<String, ClientCertificate>,
}

/// `[origin.client_certificates]`: one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM file of the certificate, and of its issuers where the origin wants them.
    pub certificate: PathBuf,
    /// PEM file of its key, which only its owner may read.
    pub key: PathBuf,
}

/// Whose revocation is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrlDepth {
    /// The origin's own.
    #[default]
    EndEntity,
    /// Also its issuers'.
    Chain,
}

/// What becomes of a certificate where revocation cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lenience {
    #[default]
    Allow,
    Deny,
}
