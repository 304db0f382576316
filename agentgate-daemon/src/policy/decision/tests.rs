//! What must hold whatever the policy says. Single judgements are data, in `policies/cases/`.

use http::{Request, header::HOST};

use super::*;
use crate::{
    model::SessionId,
    policy::{Text, Texts},
};

const MODES: [&str; 3] = ["enforce", "blocklist", "audit"];

fn subject() -> Subject {
    Subject::unknown(SessionId("test@1".to_owned()), 1, 0)
}

/// The address was told for some name.
const GIVEN: Given<'_> = Given::Names(&[]);

fn policy(mode: &str, rest: &str) -> Policy {
    let text = format!("version = 1\nmode = \"{mode}\"\n{rest}");
    Policy::compile(&Texts { policy: Some(Text { file: "policy.toml", text: &text }), ..Texts::default() })
        .unwrap()
}

/// The most permissive document there is.
const EVERYTHING: &str = "[hosts]\nallow = ['*']\npassthrough = ['*']\n[network]\nprivate = 'allow'\n\
                          cidrs = [{ allow = '0.0.0.0/0' }, { allow = '::/0' }]\n";

fn head(host: &str) -> Parts {
    Request::builder()
        .uri("/x?y=1")
        .header(HOST, host)
        .header("x-mark", "kept")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

fn judge(policy: &Policy, original: &str, scheme: Scheme, sni: Option<&str>, host: &str) -> Judgement {
    let sni = sni.map(|sni| Host::parse(sni).unwrap());
    let subject = subject();
    let named = Host::parse(host).ok();
    let context = RequestContext {
        original: original.parse().unwrap(),
        scheme,
        sni: sni.as_ref(),
        given: Given::Names(named.as_slice()),
        subject: &subject,
        body: Default::default(),
    };
    policy.judge(context, head(host))
}

#[test]
fn nothing_is_forwarded_to_the_gate_s_own_name() {
    for mode in MODES {
        let policy = policy(mode, EVERYTHING);
        let (subject, sni) = (subject(), Host::parse(OWN_NAME).unwrap());
        let connection = Connection {
            original: "192.0.2.1:443".parse().unwrap(),
            sniffed: Sniffed::Tls { sni: Some(&sni), ech: false },
            given: Given::Never,
            subject: &subject,
        };
        // Intercepted although the name is passed through, so that the handshake can be tried.
        assert!(matches!(policy.admit(&connection), Admission::Intercept(_)), "{mode}");
        for (scheme, sni) in [(Scheme::Https, Some(OWN_NAME)), (Scheme::Http, None)] {
            let judged = judge(&policy, "192.0.2.1:443", scheme, sni, OWN_NAME);
            assert!(matches!(&judged, Judgement::Deny { .. }), "{mode}");
            assert_eq!(judged.verdict().rule, "gate:own_name");
        }
    }
}

#[test]
fn no_document_lifts_the_invariants() {
    for mode in MODES {
        let policy = policy(mode, EVERYTHING);
        let subject = subject();
        let sni = Host::parse("a.example").unwrap();
        for original in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[fd00:ec2::254]:80",
            "127.0.0.1:80",
            "[::1]:80",
            "0.0.0.0:80",
            "[::]:80",
        ] {
            for sniffed in [
                Sniffed::Tls { sni: Some(&sni), ech: false },
                Sniffed::Tls { sni: None, ech: true },
                Sniffed::Http,
                Sniffed::Opaque,
                Sniffed::Silent,
            ] {
                let original = original.parse().unwrap();
                let admission =
                    policy.admit(&Connection { original, sniffed, given: GIVEN, subject: &subject });
                assert!(
                    matches!(admission, Admission::Deny(_)),
                    "{mode} {original} {sniffed:?}: {admission:?}"
                );
            }
        }
        for (original, scheme, sni, host, status) in [
            ("203.0.113.7:443", Scheme::Https, Some("a.example"), "b.example", 421),
            ("203.0.113.7:443", Scheme::Https, Some("a.example"), "a.example:444", 421),
            ("203.0.113.7:443", Scheme::Https, None, "a.example", 421),
            ("203.0.113.7:443", Scheme::Https, Some("203.0.113.8"), "203.0.113.8", 421),
            ("203.0.113.7:80", Scheme::Http, None, "203.0.113.8", 421),
            ("203.0.113.7:80", Scheme::Http, None, "169.254.169.254", 421),
            ("203.0.113.7:80", Scheme::Http, None, "", 400),
            ("169.254.169.254:80", Scheme::Http, None, "a.example", 403),
        ] {
            match judge(&policy, original, scheme, sni, host) {
                Judgement::Deny { refusal, .. } => {
                    assert_eq!(refusal.status, status, "{mode} {original} {host}");
                    assert!(refusal.verdict.rule.starts_with("invariant:"), "{}", refusal.verdict.rule);
                }
                Judgement::Allow(permit) => panic!("{mode} {original} {host}: {permit:?}"),
            }
        }
    }
}

#[test]
fn audit_refuses_nothing_else() {
    let policy = policy("audit", "[hosts]\nallow = ['ok.example']\ndeny = ['*']\n");
    let subject = subject();
    let sni = Host::parse("a.example").unwrap();
    for original in ["203.0.113.7:443", "10.0.0.1:443", "198.18.0.1:22"] {
        let original = original.parse().unwrap();
        for sniffed in [
            Sniffed::Tls { sni: Some(&sni), ech: false },
            Sniffed::Tls { sni: None, ech: false },
            Sniffed::Http,
            Sniffed::Opaque,
            Sniffed::Silent,
        ] {
            let admission = policy.admit(&Connection { original, sniffed, given: GIVEN, subject: &subject });
            assert!(!matches!(admission, Admission::Deny(_)), "{original} {sniffed:?}: {admission:?}");
            if let Admission::Tunnel(permit) = &admission {
                assert!(permit.flags().iter().any(|flag| flag.code == "would_block"));
            }
        }
        for host in ["ok.example", "a.example"] {
            let judged = judge(&policy, &original.to_string(), Scheme::Http, None, host);
            assert!(matches!(judged, Judgement::Allow(_)), "{judged:?}");
            assert!(judged.flags().iter().any(|flag| flag.code == "would_block"), "the deny list has all");
        }
    }
}

/// With nothing configured nothing passes, whatever a connection or request looks like.
#[test]
fn closed_lets_nothing_through() {
    let policy = Policy::closed();
    let subject = subject();
    for sniffed in [Sniffed::Opaque, Sniffed::Silent, Sniffed::Tls { sni: None, ech: false }] {
        let original = "203.0.113.7:443".parse().unwrap();
        assert!(matches!(
            policy.admit(&Connection { original, sniffed, given: GIVEN, subject: &subject }),
            Admission::Deny(_)
        ));
    }
    for (scheme, sni, host) in [
        (Scheme::Https, Some("a.example"), "a.example"),
        (Scheme::Https, None, "203.0.113.7"),
        (Scheme::Http, None, "a.example"),
        (Scheme::Http, None, "203.0.113.7"),
    ] {
        let judged = judge(&policy, "203.0.113.7:443", scheme, sni, host);
        assert!(matches!(judged, Judgement::Deny { .. }), "{judged:?}");
    }
}

/// Deny wins over every other list and entry, in both modes that refuse.
#[test]
fn deny_always_wins() {
    for mode in ["enforce", "blocklist"] {
        for denied in ["*", "*.example", "a.example", "a.example:443", "*:443"] {
            let rest = EVERYTHING.replace("[hosts]\n", &format!("[hosts]\ndeny = ['{denied}']\n"));
            let policy = policy(mode, &rest);
            let sni = Host::parse("a.example").unwrap();
            let connection = Connection {
                original: "203.0.113.7:443".parse().unwrap(),
                sniffed: Sniffed::Tls { sni: Some(&sni), ech: false },
                given: GIVEN,
                subject: &subject(),
            };
            assert!(
                matches!(policy.admit(&connection), Admission::Intercept(_)),
                "said in HTTP, not tunnelled"
            );
            let judged = judge(&policy, "203.0.113.7:443", Scheme::Https, Some("a.example"), "a.example");
            assert_eq!(judged.verdict().rule, format!("deny:{denied}"));
            assert_eq!(judged.verdict().action, Action::Deny);
        }
    }
}

/// The permit holds the head as it came and the destination as it was judged.
#[test]
fn permits_carry_what_was_judged() {
    let policy = policy("enforce", "[hosts]\nallow = ['a.example:8443']\n");
    match judge(&policy, "[::ffff:203.0.113.7]:8443", Scheme::Https, Some("a.example"), "A.Example.:8443") {
        Judgement::Allow(permit) => {
            assert_eq!(permit.destination().authority.to_string(), "a.example:8443");
            assert_eq!(permit.destination().scheme, Scheme::Https);
            assert_eq!(permit.verdict().rule, "allow:a.example:8443");
            let (head, _, addresses) = permit.into_parts();
            assert_eq!(head.headers["host"], "A.Example.:8443", "nothing is rewritten");
            assert_eq!(head.headers["x-mark"], "kept");
            assert_eq!(head.uri, "/x?y=1");
            assert!(addresses.admits("10.0.0.1".parse().unwrap(), 8443).is_err());
            assert!(addresses.admits("203.0.113.9".parse().unwrap(), 8443).is_ok());
        }
        Judgement::Deny { refusal, .. } => panic!("{refusal:?}"),
    }
    match judge(&policy, "203.0.113.7:443", Scheme::Https, Some("a.example"), "a.example") {
        Judgement::Deny { refusal, head, authority } => {
            assert_eq!(refusal.remedy, "agentctl allow a.example");
            assert_eq!(head.headers["x-mark"], "kept");
            assert_eq!(authority.unwrap().to_string(), "a.example:443");
        }
        Judgement::Allow(permit) => panic!("another port: {permit:?}"),
    }
}

/// A refusal never shows what a hostile agent could hide in it, and always says something.
#[test]
fn refusals_are_complete() {
    for mode in ["enforce", "blocklist"] {
        let policy = policy(mode, "[hosts]\ndeny = ['d.example']\n");
        for (original, sni, host) in [
            ("203.0.113.7:443", Some("d.example"), "d.example"),
            ("203.0.113.7:443", Some("a.example"), "b.example"),
            ("203.0.113.7:443", Some("a.example"), "u:secret@a.example"),
            ("10.0.0.1:443", None, "10.0.0.1"),
            ("127.0.0.1:443", None, "127.0.0.1"),
        ] {
            let judged = judge(&policy, original, Scheme::Https, sni, host);
            let Judgement::Deny { refusal, .. } = &judged else { panic!("{judged:?}") };
            assert_eq!(refusal.verdict.action, Action::Deny);
            assert!(!refusal.verdict.reason.is_empty() && !refusal.flags.is_empty());
            assert!([400, 403, 421].contains(&refusal.status));
            assert!(!format!("{refusal:?}").contains("secret"));
        }
    }
}
