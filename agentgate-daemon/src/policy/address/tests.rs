//! Tables of addresses: what each is, and what lifts its refusal.

use super::*;
use crate::policy::HostFacts;

#[test]
fn classes() {
    use AddressClass::{Loopback, Metadata, Private, Public, Reserved, Unspecified};
    let rows = [
        ("8.8.8.8", Public),
        ("1.1.1.1", Public),
        ("11.0.0.0", Public),
        ("9.255.255.255", Public),
        ("172.15.255.255", Public),
        ("172.32.0.0", Public),
        ("100.63.255.255", Public),
        ("100.128.0.0", Public),
        ("192.167.255.255", Public),
        ("223.255.255.255", Public),
        ("198.17.255.255", Public),
        ("198.20.0.0", Public),
        // documentation ranges
        ("192.0.2.1", Public),
        ("198.51.100.7", Public),
        ("203.0.113.7", Public),
        ("2001:db8::1", Public),
        ("2606:4700::1111", Public),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("100.64.0.1", Private),
        ("100.127.255.255", Private),
        ("169.254.1.1", Private),
        ("fc00::1", Private),
        ("fdff::1", Private),
        ("fe80::1", Private),
        ("febf::1", Private),
        ("fec0::1", Private),
        ("0.0.0.1", Reserved),
        ("192.0.0.1", Reserved),
        ("192.88.99.1", Reserved),
        ("198.18.0.1", Reserved),
        ("198.19.255.255", Reserved),
        ("224.0.0.1", Reserved),
        ("239.255.255.255", Reserved),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("ff02::1", Reserved),
        ("100::1", Reserved),
        ("64:ff9b:1::1", Reserved),
        ("2001:2::1", Reserved),
        ("2001:20::1", Reserved),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("::1", Loopback),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("168.63.129.16", Metadata),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("0.0.0.0", Unspecified),
        ("::", Unspecified),
        // mapped
        ("::ffff:8.8.8.8", Public),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:0.0.0.0", Unspecified),
        // compatible
        ("::8.8.8.8", Public),
        ("::10.0.0.1", Private),
        ("::127.0.0.1", Loopback),
        ("::169.254.169.254", Metadata),
        // translated
        ("::ffff:0:10.0.0.1", Private),
        ("::ffff:0:169.254.169.254", Metadata),
        // NAT64
        ("64:ff9b::8.8.8.8", Public),
        ("64:ff9b::10.0.0.1", Private),
        ("64:ff9b::127.0.0.1", Loopback),
        ("64:ff9b::169.254.169.254", Metadata),
        // 6to4
        ("2002:0808:0808::1", Public),
        ("2002:0a00:0001::1", Private),
        ("2002:7f00:0001::1", Loopback),
        ("2002:a9fe:a9fe::1", Metadata),
        // Teredo: server 8.8.8.8, then the inverted client
        ("2001:0:0808:0808:0:0:f7f7:f7f7", Public),
        ("2001:0:0808:0808:0:0:f5ff:fffe", Private),
        ("2001:0:0808:0808:0:0:5601:5601", Metadata),
        ("2001:0:0a00:0001:0:0:f7f7:f7f7", Private),
        // ISATAP
        ("2606:4700::5efe:8.8.8.8", Public),
        ("2606:4700::5efe:10.0.0.1", Private),
        ("2606:4700::200:5efe:169.254.169.254", Metadata),
    ];
    for (ip, expect) in rows {
        assert_eq!(classify(ip.parse().unwrap()), expect, "{ip}");
    }
}

/// No spelling of an IPv4 address within an IPv6 one is judged more kindly than the address itself.
#[test]
fn embeddings_are_never_kinder() {
    for plain in ["10.1.2.3", "127.0.0.1", "169.254.169.254", "192.168.0.1", "0.0.0.0", "198.18.0.1"] {
        let v4: Ipv4Addr = plain.parse().unwrap();
        let bits = u128::from(u32::from(v4));
        let client = u128::from(!u32::from(v4));
        let public = 0x0808_0808_u128;
        let spellings = [
            (0xffff_u128 << 32) | bits,
            (0xffff_u128 << 48) | bits,
            (0x64_ff9b_u128 << 96) | bits,
            (0x2002_u128 << 112) | (bits << 80) | 1,
            (0x2001_u128 << 112) | (bits << 64) | (!public & 0xffff_ffff),
            (0x2001_u128 << 112) | (public << 64) | client,
            (0x2606_4700_u128 << 96) | (0x5efe_u128 << 32) | bits,
        ];
        for spelling in spellings {
            let ip = IpAddr::V6(Ipv6Addr::from(spelling));
            assert!(classify(ip) >= classify(IpAddr::V4(v4)), "{ip} of {plain}");
            assert!(AddressRules::default().admits(ip, 443).is_err(), "{ip} of {plain}");
        }
    }
}

fn rules(mode: Mode, private: bool, cidrs: &[(&str, &[u16])]) -> AddressRules {
    let cidrs =
        cidrs.iter().map(|(net, ports)| CidrEntry { net: net.parse().unwrap(), ports: ports.to_vec() });
    AddressRules { mode, private, cidrs: cidrs.collect(), ..AddressRules::default() }
}

#[test]
fn what_lifts_what() {
    // net, ports, address, port, admitted
    let rows: [(&str, &[u16], &str, u16, bool); 24] = [
        ("10.1.2.0/24", &[5432], "10.1.2.3", 5432, true),
        ("10.1.2.0/24", &[5432], "10.1.2.3", 5433, false),
        ("10.1.2.0/24", &[], "10.1.2.3", 1, true),
        ("10.1.2.0/24", &[], "10.1.3.3", 1, false),
        ("10.1.2.0/24", &[], "::ffff:10.1.2.3", 1, true),
        ("10.1.2.0/24", &[], "64:ff9b::10.1.2.3", 1, false),
        ("64:ff9b::a01:200/120", &[], "64:ff9b::10.1.2.3", 1, true),
        ("0.0.0.0/0", &[], "10.1.2.3", 1, true),
        ("0.0.0.0/0", &[], "198.18.0.1", 1, true),
        ("0.0.0.0/0", &[], "169.254.169.254", 80, false),
        ("0.0.0.0/0", &[], "127.0.0.1", 80, false),
        ("0.0.0.0/0", &[], "0.0.0.0", 80, false),
        ("0.0.0.0/32", &[], "0.0.0.0", 80, false),
        ("169.254.0.0/16", &[80], "169.254.169.254", 80, true),
        ("169.254.169.254/32", &[80], "169.254.169.254", 80, true),
        ("169.254.169.254/32", &[80], "::ffff:169.254.169.254", 80, true),
        ("169.254.169.254/32", &[80], "169.254.169.254", 443, false),
        ("100.64.0.0/10", &[], "100.100.100.200", 80, false),
        ("100.100.100.200/32", &[], "100.100.100.200", 80, true),
        ("::/0", &[], "fd00:ec2::254", 80, false),
        ("fd00:ec2::254/128", &[], "fd00:ec2::254", 80, true),
        ("::/0", &[], "64:ff9b::169.254.169.254", 80, false),
        ("64:ff9b::a9fe:a9fe/128", &[], "64:ff9b::169.254.169.254", 80, false),
        ("127.0.0.1/32", &[8080], "127.0.0.1", 8080, true),
    ];
    for (net, ports, ip, port, admitted) in rows {
        for mode in [Mode::Enforce, Mode::Blocklist] {
            let rules = rules(mode, false, &[(net, ports)]);
            assert_eq!(
                rules.admits(ip.parse().unwrap(), port).is_ok(),
                admitted,
                "{net} {ports:?} {ip}:{port}"
            );
        }
    }
}

#[test]
fn private_allow_lifts_private_only() {
    let rules = rules(Mode::Enforce, true, &[]);
    for (ip, admitted) in [
        ("10.0.0.1", true),
        ("fe80::1", true),
        ("100.64.0.1", true),
        ("198.18.0.1", false),
        ("224.0.0.1", false),
        ("127.0.0.1", false),
        ("169.254.169.254", false),
        ("0.0.0.0", false),
    ] {
        assert_eq!(rules.admits(ip.parse().unwrap(), 80).is_ok(), admitted, "{ip}");
    }
}

#[test]
fn audit_flags_what_it_lets_through_and_keeps_invariants() {
    let mut rules = rules(Mode::Audit, false, &[]);
    rules.deny.insert("203.0.113.66".parse().unwrap(), super::super::matcher::Written::List);
    for (ip, admitted, flags) in [
        ("203.0.113.7", true, 0),
        ("203.0.113.66", true, 1),
        ("10.0.0.1", true, 1),
        ("198.18.0.1", true, 1),
        ("127.0.0.1", false, 0),
        ("169.254.169.254", false, 0),
        ("0.0.0.0", false, 0),
    ] {
        let ip = ip.parse().unwrap();
        assert_eq!(rules.admits(ip, 80).is_ok(), admitted, "{ip}");
        let found = rules.flags(ip, 80);
        assert_eq!(found.len(), flags, "{ip}: {found:?}");
        assert!(found.iter().all(|flag| flag.code == "would_block"));
    }
}

#[test]
fn denied_addresses_are_not_dialled() {
    let mut rules = rules(Mode::Blocklist, false, &[("203.0.113.0/24", &[])]);
    rules.deny.insert("203.0.113.66:80".parse().unwrap(), super::super::matcher::Written::List);
    let refusal = rules.admits("203.0.113.66".parse().unwrap(), 80).unwrap_err();
    assert_eq!(refusal.verdict.rule, "deny:203.0.113.66:80");
    assert!(rules.admits("203.0.113.66".parse().unwrap(), 443).is_ok());
    assert!(rules.admits("203.0.113.67".parse().unwrap(), 80).is_ok());
}

#[test]
fn refusals_say_what_to_write() {
    let rules = AddressRules::default();
    let remedy = |ip: &str| rules.admits(ip.parse().unwrap(), 5432).unwrap_err().remedy;
    assert!(
        remedy("10.1.2.3").contains("{ allow = \"10.1.2.3/32\", ports = [5432] }"),
        "{}",
        remedy("10.1.2.3")
    );
    assert!(remedy("fd00::5").contains("\"fd00::5/128\""));
    assert!(remedy("169.254.169.254").contains("169.254.169.254/32"));
    assert_eq!(remedy("0.0.0.0"), "", "nothing lifts it");
    assert_eq!(remedy("64:ff9b::7f00:1"), "", "nothing lifts it");
}

fn host() -> Facts {
    Facts::of(&HostFacts {
        addresses: [
            "127.0.0.1",
            "192.168.7.5",
            "203.0.113.200",
            "2001:db8:7::5",
            "fe80::5",
            "::ffff:10.7.7.7",
        ]
        .map(|ip| ip.parse().unwrap())
        .to_vec(),
        nat64: [
            "2001:db9::/32",
            "2001:dba:100::/40",
            "2001:dbb:122::/48",
            "2001:dbc:122:300::/56",
            "2001:dbd:122:344::/64",
            "2001:dbe:122:344::/96",
            "64:ff9b:1:2::/96",
            "fd64::/96",
        ]
        .map(|net| net.parse().unwrap())
        .to_vec(),
    })
}

#[test]
fn classes_on_a_host() {
    use AddressClass::{Loopback, Metadata, Private, Public, Reserved, Unspecified};
    let rows = [
        // its own, in every spelling
        ("192.168.7.5", Loopback),
        ("192.168.7.6", Private),
        ("203.0.113.200", Loopback),
        ("203.0.113.201", Public),
        ("::ffff:203.0.113.200", Loopback),
        ("10.7.7.7", Loopback),
        ("2001:db8:7::5", Loopback),
        ("2001:db8:7::6", Public),
        ("fe80::5", Loopback),
        ("fe80::6", Private),
        ("64:ff9b::203.0.113.200", Loopback),
        ("2002:cb00:71c8::1", Loopback),
        ("2001:0:0808:0808:0:0:34ff:8e37", Loopback),
        ("2606:4700::5efe:203.0.113.200", Loopback),
        ("2001:dbe:122:344::203.0.113.200", Loopback),
        // through its translators, at every length of a prefix
        ("2001:db9:808:808::", Public),
        ("2001:db9:a9fe:a9fe::", Metadata),
        ("2001:db9:7f00:1::", Loopback),
        ("2001:dba:1a9:fea9:fe::", Metadata),
        ("2001:dba:10a:1:2::", Private),
        ("2001:dbb:122:a9fe:a9:fe00::", Metadata),
        ("2001:dbb:122:a00:0:100::", Private),
        ("2001:dbc:122:3a9:fe:a9fe::", Metadata),
        ("2001:dbd:122:344:a9:fea9:fe00:0", Metadata),
        ("2001:dbd:122:344:8:808:800:0", Public),
        ("2001:dbd:122:344::", Unspecified),
        ("2001:dbe:122:344::169.254.169.254", Metadata),
        ("2001:dbe:122:344::0.0.0.0", Unspecified),
        ("2001:dbe:122:344::198.18.0.1", Reserved),
        ("2001:dbe:122:344::8.8.8.8", Public),
        ("2001:dbe:122:345::169.254.169.254", Public),
        // of local use: where a translator takes it, and where none does
        ("64:ff9b:1:2::8.8.8.8", Public),
        ("64:ff9b:1:2::10.0.0.1", Private),
        ("64:ff9b:1:2::169.254.169.254", Metadata),
        ("64:ff9b:1:3::8.8.8.8", Reserved),
        // learned prefixes make nothing kinder
        ("fd64::8.8.8.8", Private),
        ("fd64::169.254.169.254", Metadata),
    ];
    for (ip, expect) in rows {
        assert_eq!(classify_on(&host(), ip.parse().unwrap()), expect, "{ip}");
    }
}

/// An own address is opened by an entry for that address alone: a wider one was not written with it in
/// mind.
#[test]
fn what_lifts_an_own_address() {
    let rows: [(&str, &str, bool); 9] = [
        ("203.0.113.0/24", "203.0.113.200", false),
        ("203.0.113.200/32", "203.0.113.200", true),
        ("203.0.113.200/32", "::ffff:203.0.113.200", true),
        ("192.168.0.0/16", "192.168.7.5", false),
        ("192.168.7.5/32", "192.168.7.5", true),
        ("2001:db8:7::/64", "2001:db8:7::5", false),
        ("2001:db8:7::5/128", "2001:db8:7::5", true),
        ("127.0.0.0/8", "127.0.0.1", true),
        ("64:ff9b::cb00:71c8/128", "64:ff9b::203.0.113.200", false),
    ];
    for (net, ip, admitted) in rows {
        let rules = AddressRules { host: host(), ..rules(Mode::Audit, true, &[(net, &[])]) };
        assert_eq!(rules.admits(ip.parse().unwrap(), 80).is_ok(), admitted, "{net} {ip}");
    }
    let open = AddressRules { host: host(), ..rules(Mode::Blocklist, true, &[]) };
    assert!(open.admits("192.168.7.5".parse().unwrap(), 80).is_err(), "private = allow is not for own ones");
    let remedy = open.admits("192.168.7.5".parse().unwrap(), 80).unwrap_err().remedy;
    assert!(remedy.contains("192.168.7.5/32"), "{remedy}");
}

#[test]
fn this_host_in_every_spelling() {
    let rules = AddressRules { host: host(), ..AddressRules::default() };
    for (ip, here) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("0.0.0.0", true),
        ("::", true),
        ("::1", true),
        ("192.168.7.5", true),
        ("::ffff:192.168.7.5", true),
        ("64:ff9b::127.0.0.1", true),
        ("2001:dbe:122:344::192.168.7.5", true),
        ("192.168.7.6", false),
        ("169.254.169.254", false),
        ("8.8.8.8", false),
    ] {
        assert_eq!(rules.is_this_host(ip.parse().unwrap()), here, "{ip}");
    }
}

#[test]
fn names_that_mean_this_host() {
    for (name, expect) in [
        ("localhost", true),
        ("localhost.", true),
        ("LOCALHOST", true),
        ("LocalHost.", true),
        ("a.localhost", true),
        ("a.b.LOCALHOST.", true),
        ("notlocalhost", false),
        ("localhost.example", false),
        ("localhost.localdomain", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(is_localhost(&Host::parse(name).unwrap()), expect, "{name}");
    }
}

#[test]
fn answers_that_may_be_told() {
    // mode, name, address, told
    let rows = [
        (Mode::Enforce, "a.example", "203.0.113.7", true),
        (Mode::Enforce, "a.example", "10.0.0.1", false),
        (Mode::Blocklist, "a.example", "10.0.0.1", false),
        (Mode::Audit, "a.example", "10.0.0.1", true),
        (Mode::Audit, "a.example", "169.254.169.254", false),
        (Mode::Audit, "a.example", "127.0.0.1", false),
        (Mode::Audit, "a.example", "203.0.113.200", false),
        (Mode::Audit, "a.example", "0.0.0.0", false),
        (Mode::Enforce, "a.example", "10.1.2.3", true),
        (Mode::Enforce, "a.example", "::ffff:10.1.2.3", true),
        (Mode::Enforce, "a.example", "2001:dbe:122:344::169.254.169.254", false),
        (Mode::Enforce, "a.example", "198.18.0.1", false),
        (Mode::Enforce, "localhost", "127.0.0.1", true),
        (Mode::Enforce, "a.localhost", "::1", true),
        (Mode::Audit, "localhost", "203.0.113.7", false),
        (Mode::Audit, "a.localhost", "10.1.2.3", false),
    ];
    for (mode, name, ip, told) in rows {
        let rules = AddressRules { host: host(), ..rules(mode, false, &[("10.1.2.0/24", &[5432])]) };
        let found = rules.admits_answer(ip.parse().unwrap(), &Host::parse(name).unwrap());
        assert_eq!(found.is_ok(), told, "{mode} {name} {ip}: {found:?}");
        if let Err(refusal) = found {
            assert!(refusal.verdict.reason.contains(name) && !refusal.flags.is_empty(), "{refusal:?}");
        }
    }
}
