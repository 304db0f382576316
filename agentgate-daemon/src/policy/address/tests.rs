//! Tables of addresses: what each is, and what lifts its refusal.

use super::*;

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
    AddressRules { mode, private, cidrs: cidrs.collect(), deny: HostSet::default() }
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
