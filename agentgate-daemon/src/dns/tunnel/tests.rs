//! Names of hosts that are to pass, and names of tunnels that are not.

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap().to_lowercase()
}

fn severities(suspicion: &Suspicion) -> Vec<Severity> {
    suspicion.flags.iter().map(|flag| flag.severity).collect()
}

/// Bytes that nobody could have chosen with this module in mind.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(bytes)
    .collect()
}

fn coded(seed: u64, bytes: usize, alphabet: &[u8]) -> String {
    noise(seed, bytes).iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

const HEX: &[u8] = b"0123456789abcdef";
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";

#[test]
fn names_of_real_hosts_are_not_suspected() {
    let tunnels = Tunnels::default();
    for good in [
        "api.anthropic.com",
        "e12345.dscb.akamaiedge.net",
        "a1531.dscd.akamai.net",
        "d111111abcdef8.cloudfront.net",
        "rr5---sn-4g5e6nzz.googlevideo.com",
        "ec2-203-0-113-25.eu-central-1.compute.amazonaws.com",
        "internal-k8s-default-web-0a1b2c3d4e-1234567890.us-east-1.elb.amazonaws.com",
        "vpce-0123456789abcdef0-abcdefgh-us-east-1a.ssm-contacts.us-east-1.vpce.amazonaws.com",
        "mydb.cluster-c9akciq32rgw.us-east-1.rds.amazonaws.com",
        "a-bucket-with-a-long-name-for-logs-of-2024.s3.dualstack.eu-west-1.amazonaws.com",
        "1234567890-abcdefghijklmnopqrstuvwxyz012345.apps.googleusercontent.com",
        "prod-aks-cluster-dns-1234abcd.hcp.westeurope.azmk8s.io",
        "k3wxy5kd7ylkc6uw2xnrmmsz4mibjqpv._domainkey.amazonses.com",
        "selector1-example-com._domainkey.example.onmicrosoft.com",
        "_acme-challenge.www.example.co.uk",
        "_sip._tcp.example.com",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
        "xn--bcher-kva.example",
        "localhost",
        "com",
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::TXT] {
            let suspicion = tunnels.look(1, &name(good), kind);
            assert_eq!(suspicion, Suspicion::default(), "{good}");
        }
    }
    assert_eq!(tunnels.look(1, &Name::root(), RecordType::NS), Suspicion::default());
}

#[test]
fn one_name_of_a_tunnel_is_enough() {
    let tunnels = Tunnels::default();
    let labels = |seed: u64, alphabet| {
        let label = |n: u64| coded(seed + n, 60, alphabet);
        format!("{}.{}.{}", label(0), label(1), label(2))
    };
    // iodine upstream in base32; dnscat2 in hexadecimal; a file by `xxd -p` and dig.
    for bad in [
        format!("0{}.t.example.com", labels(1, BASE32)),
        format!("dnscat.{}.example.com", labels(7, HEX)),
        format!("{}.leak.co.uk", coded(3, 60, HEX) + "." + &coded(4, 48, HEX)),
    ] {
        assert_eq!(severities(&tunnels.look(2, &name(&bad), RecordType::A)), [Severity::Medium], "{bad}");
    }
    // iodine probes with NULL, and with a private type.
    for kind in [RecordType::NULL, RecordType::Unknown(65_399)] {
        let suspicion = tunnels.look(2, &name("vaaaakardli.t.example.org"), kind);
        assert_eq!(severities(&suspicion), [Severity::Medium], "{kind}");
    }
}

#[test]
fn many_short_names_are_a_tunnel_and_then_refused() {
    let tunnels = Tunnels::default();
    let now = Instant::now();
    let ask = |n: u64, alphabet, bytes| {
        tunnels.look_at(3, &name(&format!("{}.t.example", coded(n, bytes, alphabet))), RecordType::A, now)
    };
    let first = (0..).find(|n| !ask(*n, BASE32, 32).flags.is_empty()).unwrap();
    assert!((40..=60).contains(&first), "flagged at {first}");
    let flagged = ask(first, BASE32, 32);
    assert_eq!(severities(&flagged), [Severity::High]);
    assert!(flagged.flags[0].evidence.contains("below t.example"), "{}", flagged.flags[0].evidence);
    assert_eq!(flagged.refused, None, "told of, long before it is refused");
    let refused = (first..).find(|n| ask(*n, BASE32, 32).refused.is_some()).unwrap();
    assert!(refused < 1_200, "{refused}");
    let later = now + MINUTE;
    let other = tunnels.look_at(3, &name("www.t.example"), RecordType::A, later);
    assert_eq!(other.refused, None, "a minute later it may ask again");
    assert!(!other.flags.is_empty(), "the hour remembers");
    assert_eq!(tunnels.look_at(3, &name("www.t.example"), RecordType::A, now + HOUR), Suspicion::default());
    assert_eq!(tunnels.look_at(4, &name("www.t.example"), RecordType::A, now), Suspicion::default());
}

#[test]
fn the_same_names_again_tell_nothing() {
    let tunnels = Tunnels::default();
    for round in 0..200 {
        for n in 0..30 {
            let suspicion =
                tunnels.look(5, &name(&format!("{}.cdn.example", coded(n, 32, HEX))), RecordType::A);
            assert_eq!(suspicion, Suspicion::default(), "round {round}");
        }
    }
}

#[test]
fn a_slow_tunnel_is_seen_by_the_hour_and_text_by_its_number() {
    let tunnels = Tunnels::default();
    let start = Instant::now();
    let slow = (0..1_000_u32).find(|n| {
        let at = start + Duration::from_secs(5) * *n;
        let label = coded(u64::from(*n), 60, BASE32);
        !tunnels.look_at(6, &name(&format!("{label}.slow.example")), RecordType::A, at).flags.is_empty()
    });
    assert!(slow.is_some_and(|n| n < 720), "12 names a minute: {slow:?}");
    let text = (0..1_000).find(|n| {
        !tunnels.look_at(7, &name(&format!("q{n}.text.example")), RecordType::TXT, start).flags.is_empty()
    });
    assert!(text.is_some_and(|n| n <= 40), "{text:?}");
}

#[test]
fn domains_in_turn_do_not_escape_the_account_of_the_session_nor_take_memory() {
    let tunnels = Tunnels::default();
    let now = Instant::now();
    let found = (0..4_000).find(|n| {
        let asked = format!("{}.d{}.example", coded(*n, 60, BASE32), n % 100);
        let asked = asked.replace(".example", &format!("x{}.example", n % 100));
        !tunnels.look_at(8, &name(&asked), RecordType::A, now).flags.is_empty()
    });
    assert!(found.is_some(), "a hundred domains in turn");
    for session in 0..2 * SESSIONS as u64 {
        for n in 0..2 * DOMAINS {
            tunnels.look(session, &name(&format!("a.d{n}x.example")), RecordType::A);
        }
    }
    let sessions = tunnels.sessions.lock().unwrap();
    assert!(sessions.len() <= SESSIONS);
    assert!(sessions.values().all(|session| session.domains.len() <= DOMAINS));
}

#[test]
fn a_session_asks_so_much_and_no_more() {
    let tunnels = Tunnels::default();
    let asked = (0..).take_while(|_| tunnels.has_room(1)).count();
    assert!((1_000..2_000).contains(&asked), "{asked}");
    assert!(tunnels.has_room(2), "another session has its own");
}

/// Whoever has a range of addresses has its reverse zone, and so hears the names below it.
#[test]
fn reverse_names_carry_data_too() {
    for zone in ["8.b.d.0.1.0.0.2.ip6.arpa", "113.203.in-addr.arpa"] {
        let tunnels = Tunnels::default();
        let mut last = Suspicion::default();
        let mut asked = 0;
        while last.refused.is_none() && asked < 5_000 {
            let labels = coded(asked, 48, BASE32);
            last = tunnels.look(1, &name(&format!("{labels}.{zone}")), RecordType::PTR);
            asked += 1;
        }
        assert!(last.refused.is_some(), "{zone}: {asked} names");
        assert!(severities(&last).contains(&Severity::High));
    }
    // Who reads a log of a hundred hosts asks for each once.
    let tunnels = Tunnels::default();
    for host in 0..200 {
        let reverse = name(&format!("{host}.7.113.203.in-addr.arpa"));
        assert_eq!(tunnels.look(1, &reverse, RecordType::PTR), Suspicion::default());
    }
}
