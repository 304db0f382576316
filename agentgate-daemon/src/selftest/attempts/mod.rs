//! The attempts, by family. Each goes as far as it is let, and sends its token to an address or a name
//! that is its own, so that what arrives tells whose it was.
//!
//! An attempt must work where nothing guards it: what fails outside is reported as not testable.

mod dns;
mod families;
mod http;
mod loopback;
mod metadata;
mod privilege;
mod raw;
mod sockets;
mod tasks;
mod tcp;
mod tls;
mod udp;

use super::{
    report::Family,
    suite::Attempt,
    tried::{Attempted, Try},
};

/// Descriptor with which attempts about inheritance are started.
pub(super) const INHERITED: i32 = 9;

/// What policy allows: not an attempt, but the proof that the gate is open to something.
pub(super) const ALLOWED_REQUEST: Attempt = Attempt::new(
    Family::Http,
    "allowed-request",
    "resolves the allowed name and asks it for something over TLS",
    "nothing: it is allowed",
    allowed,
);

fn allowed(tried: &mut Try) -> Attempted {
    let name = super::orders::ALLOWED;
    let addresses = dns::resolve(tried, name)?;
    let to = addresses.into_iter().find(std::net::IpAddr::is_ipv4);
    let to = to.unwrap_or(super::orders::ALLOWED_V4.into());
    tls::request(tried, std::net::SocketAddr::new(to, 443), name, name)
}

pub(super) fn all() -> Vec<Attempt> {
    [
        tcp::ATTEMPTS,
        udp::ATTEMPTS,
        raw::ATTEMPTS,
        families::ATTEMPTS,
        tasks::ATTEMPTS,
        sockets::ATTEMPTS,
        dns::ATTEMPTS,
        http::ATTEMPTS,
        loopback::ATTEMPTS,
        metadata::ATTEMPTS,
        privilege::ATTEMPTS,
    ]
    .concat()
}
