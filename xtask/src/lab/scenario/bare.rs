//! The lab itself: is there an internet to be kept from? Without these, a silent origin would prove
//! nothing about the gate.

use fake_internet::world::{DENIED, EXPIRED, OPEN, OUTSIDE_RESOLVER, REBOUND, SINK};

use super::{Scenario, scripts};
use crate::lab::case::Case;

pub(super) fn scenarios() -> Vec<Scenario> {
    let curl = ["curl", "-sS", "-v", "-w", "\n%{http_version} %{http_code}"];
    let with = |more: &[&'static str]| [&curl[..], more].concat();
    [
        Case::outside("without a gate, every origin is reached", &with(&["https://denied.example/"]))
            .says("2 200")
            .says("CN=Fake Internet Root")
            .requests(DENIED, 1)
            .version(DENIED, "HTTP/2.0"),
        Case::outside("without a gate, IPv6 is reached", &with(&["-6", "https://open.example/"]))
            .says("2 200")
            .requests(OPEN, 1),
        Case::outside("without a gate, private addresses are reached", &with(&["https://rebound.example/"]))
            .says("2 200")
            .requests(REBOUND, 1),
        Case::outside("without a gate, datagrams arrive", &["python3", "-c", scripts::UDP])
            .says("sent")
            .look(|seen| {
                let n = seen.arrivals.datagrams_to(SINK).count();
                if n == 1 { vec![] } else { vec![format!("{n} datagrams arrived")] }
            }),
        Case::outside("without a gate, raw bytes arrive", &["python3", "-c", scripts::OPAQUE]).look(|seen| {
            let n = seen.arrivals.connections_to(SINK).count();
            if n == 1 { vec![] } else { vec![format!("{n} connections arrived")] }
        }),
        Case::outside("without a gate, another resolver hears", &["python3", "-c", scripts::DNS_ONE_WAY])
            .look(|seen| {
                let n = seen.arrivals.datagrams_to(OUTSIDE_RESOLVER).count();
                if n == 1 { vec![] } else { vec![format!("{n} datagrams arrived")] }
            }),
        Case::outside("a bad certificate is refused by curl itself", &with(&["https://expired.example/"]))
            .fails()
            .says("certificate has expired")
            .requests(EXPIRED, 0),
        Case::outside("a name that does not exist does not resolve", &with(&["https://nowhere.example/"]))
            .fails()
            .says("Could not resolve host"),
        Case::outside("the machine's own network is out of sight", &["ip", "-o", "link"]).look(|seen| {
            let names = seen.ended.stdout.lines().filter_map(|line| line.split(": ").nth(1));
            let strange =
                names.filter(|name| *name != "lo" && !name.starts_with("gate0@") && !standard(name));
            strange.map(|name| format!("there is an interface {name}")).collect()
        }),
    ]
    .into_iter()
    .map(Scenario::case)
    .collect()
}

/// Interfaces that some kernels put into every fresh network namespace.
fn standard(name: &str) -> bool {
    [
        "sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "teql0",
        "ifb",
    ]
    .iter()
    .any(|known| name.starts_with(known))
}
