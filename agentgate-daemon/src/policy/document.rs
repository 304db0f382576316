//! `policy.toml` as it is written. Keys that this version does not know are errors, so that a rule
//! nobody enforces cannot look as if it were in force.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use toml::Spanned;

use super::compile::Text;
use crate::model::{Mode, TextError};

/// The whole document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) version: Spanned<u64>,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) hosts: Hosts,
    #[serde(default)]
    pub(super) network: Network,
    #[serde(default)]
    pub(super) inspect: Inspect,
}

/// `[hosts]`: patterns, merged with the list files.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hosts {
    pub(super) allow: Vec<Spanned<String>>,
    pub(super) deny: Vec<Spanned<String>>,
    pub(super) passthrough: Vec<Spanned<String>>,
}

/// `[inspect]`: what happens to what cannot be inspected whole.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inspect {
    pub(super) truncated: Truncated,
}

/// What happens to a request of which less than all can be inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Truncated {
    #[default]
    Allow,
    Deny,
}

/// `[network]`: what is judged without a name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Network {
    pub(super) loopback: Loopback,
    pub(super) private: Private,
    pub(super) cidrs: Vec<Cidr>,
    pub(super) udp: Udp,
    pub(super) opaque_tcp: Vec<OpaqueTcp>,
}

/// `loopback = { default = "own", ports = [5432] }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Loopback {
    pub(super) default: LoopbackDefault,
    pub(super) ports: Vec<Spanned<u64>>,
}

/// What happens to a loopback port that `ports` does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LoopbackDefault {
    /// A session reaches the ports that it listens on itself.
    #[default]
    Own,
    Deny,
}

/// What happens to private addresses that `cidrs` does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Private {
    #[default]
    Deny,
    Allow,
}

/// What happens to UDP other than DNS: `"deny"`, or the ranges that pass.
#[derive(Debug, Default)]
pub(super) struct Udp(pub(super) Vec<UdpEntry>);

impl<'de> Deserialize<'de> for Udp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DenyOrList;
        impl<'de> Visitor<'de> for DenyOrList {
            type Value = Udp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"deny\" or a list of { allow, ports }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Udp, E> {
                match text {
                    "deny" => Ok(Udp(Vec::new())),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Udp, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = items.next_element()? {
                    entries.push(entry);
                }
                Ok(Udp(entries))
            }
        }
        deserializer.deserialize_any(DenyOrList)
    }
}

/// `{ allow = "10.1.2.0/24", ports = [5000, "6000-6010"] }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpEntry {
    pub(super) allow: Spanned<String>,
    pub(super) ports: Vec<Spanned<PortRange>>,
}

/// A port, or two with all between them, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a port, or two as in \"6000-6010\"")]
pub(super) enum PortRange {
    One(u64),
    Text(String),
}

/// `{ host = "github.com", port = 22 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpaqueTcp {
    pub(super) host: Spanned<String>,
    pub(super) port: Spanned<u64>,
}

/// `{ allow = "10.1.2.0/24", ports = [5432] }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cidr {
    pub(super) allow: Spanned<String>,
    /// `None`: every port.
    pub(super) ports: Option<Vec<Spanned<u64>>>,
}

impl Document {
    /// Reads the document.
    ///
    /// # Errors
    /// The first fault of its syntax, keys and types.
    pub(super) fn parse(text: &Text<'_>) -> Result<Self, TextError> {
        let document: Self = toml::from_str(text.text)
            .map_err(|e| TextError::from_toml(text.file, text.text, e.message(), e.span()))?;
        if *document.version.get_ref() == 1 {
            return Ok(document);
        }
        Err(TextError::at(
            text.file,
            text.text,
            document.version.span().start,
            format!("version {} of the policy language is not known", document.version.get_ref()),
            "write version = 1",
        ))
    }
}
