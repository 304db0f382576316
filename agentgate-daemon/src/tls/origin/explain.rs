//! Why an origin's certificate is refused, in words for a person.

use std::fmt::Write as _;

use rustls::CertificateError as Error;
use rustls_pki_types::UnixTime;

use crate::model::Host;

/// Names of a certificate that are listed, and characters of each.
const NAMES: usize = 5;
const NAME_LENGTH: usize = 80;

/// One sentence on what is wrong with the certificate that `host` showed, and what would mend it where
/// that is known.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls may name more reasons with any version")]
pub fn explain(error: &Error, host: &Host) -> String {
    match error {
        Error::Expired => format!("the certificate of {host} has expired"),
        Error::ExpiredContext { time, not_after } => {
            let since = time.as_secs().saturating_sub(not_after.as_secs());
            format!("the certificate of {host} expired on {}, {} ago", day(*not_after), length(since))
        }
        Error::NotValidYet => {
            format!("the certificate of {host} is not valid yet; is this host's clock right?")
        }
        Error::NotValidYetContext { not_before, .. } => format!(
            "the certificate of {host} is not valid before {}; is this host's clock right?",
            day(*not_before)
        ),
        Error::NotValidForName => format!("the certificate is not for {host}"),
        Error::NotValidForNameContext { presented, .. } => {
            format!("the certificate is not for {host} but for {}", names(presented))
        }
        Error::UnknownIssuer => format!(
            "nobody whom this host trusts has signed the certificate of {host}: it is self-signed, or its \
             issuer is neither among the host's roots nor in tls.extra_roots, or the origin left out a \
             certificate between them"
        ),
        Error::Revoked => format!("the certificate of {host} has been revoked by its issuer"),
        Error::UnknownRevocationStatus => format!(
            "no revocation list tells whether the certificate of {host} has been revoked, and \
             origin.crl_unknown is deny"
        ),
        Error::ExpiredRevocationList => format!(
            "the revocation list for the certificate of {host} is out of date, and origin.crl_expired is deny"
        ),
        Error::ExpiredRevocationListContext { next_update, .. } => format!(
            "the revocation list for the certificate of {host} is out of date since {}, and \
             origin.crl_expired is deny",
            day(*next_update)
        ),
        Error::InvalidPurpose | Error::InvalidPurposeContext { .. } => {
            format!("the certificate of {host} is not one for a server")
        }
        Error::BadSignature => {
            format!("the certificate of {host} is forged or damaged: a signature is wrong")
        }
        Error::BadEncoding => format!("the certificate of {host} cannot be read"),
        Error::UnsupportedSignatureAlgorithmContext { .. }
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            format!("the certificate of {host} is signed in a way that is too weak or not known")
        }
        Error::UnhandledCriticalExtension => {
            format!("the certificate of {host} demands something that is not known")
        }
        // What rustls does not map comes in the words of webpki.
        other if other.to_string().contains("CaUsedAsEndEntity") => format!(
            "the certificate of {host} is an authority's and not a server's, as self-signed ones often are"
        ),
        other => format!("the certificate of {host} is not valid: {}", clean(&other.to_string())),
    }
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "a day beyond all calendars".to_owned(),
    }
}

fn length(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

/// What the certificate says it is for, which is the origin's own word.
fn names(presented: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in presented.iter().take(NAMES).enumerate() {
        // webpki writes DnsName("x") and IpAddress(x).
        let name = name.split_once('(').map_or(name.as_str(), |(_kind, rest)| rest.trim_end_matches(')'));
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _infallible = write!(text, "{comma}{}", clean(name.trim_matches('"')));
    }
    match presented.len() {
        0 => "no name at all".to_owned(),
        1..=NAMES => text,
        more => format!("{text} and {} more", more - NAMES),
    }
}

fn clean(text: &str) -> String {
    text.chars().take(NAME_LENGTH).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
