//! What an attempt's process is told, as one JSON argument, and what it tells back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::report::Identity;

/// The name that policy allows.
pub(super) const ALLOWED: &str = "allowed.example";
/// Below this name policy allows everything, so that a tunnel can be seen to be flagged.
pub(super) const TUNNEL: &str = "tunnel.example";
/// A name that no policy names.
pub(super) const FORBIDDEN: &str = "forbidden.example";
/// Where [`ALLOWED`] is.
pub(super) const ALLOWED_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Where [`ALLOWED`] is, over IPv6.
pub(super) const ALLOWED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x600d, 0, 0, 0, 0, 0x10);
/// The resolver that the daemon is given.
pub(super) const RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// The same over IPv6.
pub(super) const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x600d, 0, 0, 0, 0, 0x53);
/// The host's own interface.
pub(super) const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same over IPv6.
pub(super) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The world's end of the wire.
pub(super) const WORLD_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The same over IPv6.
pub(super) const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// Where the detectors are asked whether they are awake.
pub(super) const FENCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// What every sink answers, so that an attempt knows one when it hears it.
pub(super) const SINK: &str = "agentgate-selftest-sink";
/// How tokens begin; sixteen hex digits follow.
pub(super) const TOKEN_PREFIX: &str = "agst";
/// Loopback and interface ports of the host on which an unguarded server listens.
pub(super) const RELAY_PORT: u16 = 3128;
/// The daemon's ports in the network namespace under test.
pub(super) const LISTENER_PORT: u16 = 7879;
/// The daemon's DNS server.
pub(super) const DNS_PORT: u16 = 7880;
/// The daemon's dashboard.
pub(super) const DASHBOARD_PORT: u16 = 7878;

/// A forbidden IPv4 address that belongs to one run.
pub(super) fn forbidden_v4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    // 240.0.0.0/4 is not routed by Linux; 203.0.113.0/24 is too small for a number per run, and within a
    // namespace of one's own any address is as good as another.
    Ipv4Addr::new(203, 0, 112 + high, low)
}

/// A forbidden IPv6 address that belongs to one run.
pub(super) fn forbidden_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, number)
}

/// Second byte of the groups that runs join.
const GROUP: u8 = 77;
/// The like of the groups of IPv6.
const GROUP6: u16 = 0x77;

/// The IPv4 group of one run: what an agent would put data into.
pub(super) fn group_v4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(239, GROUP, high, low)
}

/// The IPv6 group of one run.
pub(super) fn group_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, GROUP6, number)
}

/// The run that a forbidden address or a group belongs to.
pub(super) fn run_of(address: IpAddr) -> Option<u16> {
    match address.to_canonical() {
        IpAddr::V4(v4) => match v4.octets() {
            [203, 0, high, low] if high >= 112 => Some(u16::from_be_bytes([high - 112, low])),
            [239, GROUP, high, low] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, number] | [0xff15, 0, 0, 0, 0, 0, GROUP6, number] => {
                Some(number)
            }
            _ => None,
        },
    }
}

/// Everything an attempt may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Name of the attempt.
    pub(super) attempt: String,
    /// Its mark: [`TOKEN_PREFIX`] and sixteen hex digits.
    pub(super) token: String,
    pub(super) identity: Identity,
    /// False for the control run outside the guarded cgroup.
    pub(super) guarded: bool,
    /// The guarded cgroup's directory to enter without `agentctl run`.
    pub(super) join: Option<PathBuf>,
    /// Number of the run.
    pub(super) run: u16,
    /// Forbidden addresses of this run alone.
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    /// The accomplice outside.
    pub(super) accomplice: PathBuf,
    pub(super) accomplice_pid: u32,
    /// `/proc/…/ns/net` of the world.
    pub(super) world: PathBuf,
    /// Directory of the cgroup outside.
    pub(super) outside: PathBuf,
    pub(super) control_socket: PathBuf,
    pub(super) enrol_socket: PathBuf,
    /// This program, where every user can execute it.
    pub(super) program: PathBuf,
}

/// Why an attempt went no further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stop {
    /// A call failed.
    Refused {
        call: String,
        error: String,
        /// Of the kernel, 0 where it is none of its own.
        errno: i32,
    },
    /// Something that it needs is not on this host.
    Absent(String),
}

/// What an attempt saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// What happened, in order.
    pub(super) saw: Vec<String>,
    pub(super) stop: Option<Stop>,
    /// It got an answer that it must not get.
    pub(super) reached: Option<String>,
    /// The gate itself answered.
    pub(super) judged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_address_names_its_run() {
        for number in [0, 1, 255, 256, 1000, 4095] {
            assert_eq!(run_of(forbidden_v4(number).into()), Some(number));
            assert_eq!(run_of(forbidden_v4(number).to_ipv6_mapped().into()), Some(number));
            assert_eq!(run_of(forbidden_v6(number).into()), Some(number));
            assert_eq!(run_of(group_v4(number).into()), Some(number));
            assert_eq!(run_of(group_v6(number).into()), Some(number));
        }
        for other in [IpAddr::V4(ALLOWED_V4), IpAddr::V6(ALLOWED_V6), IpAddr::V4(HOST_V4)] {
            assert_eq!(run_of(other), None);
        }
    }
}
