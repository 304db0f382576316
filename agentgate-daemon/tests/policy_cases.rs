//! Runs every file of `policies/cases/`: policy and connection, request or address in, verdict out.
//!
//! A file has defaults for its cases at the top and one `[[case]]` each. Unknown keys are errors, and
//! so is a case that expects nothing.
//!
//! `dns` says for which names the gate's DNS server gave the address; an empty list: never. Where it is
//! left out the address was given for the name that the connection or request is for, as it is with an
//! honest client.

#![expect(clippy::unwrap_used, reason = "a fault in a file of cases fails the test that reads it")]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use agentgate::{
    model::{Flag, Host, Refusal, SessionId, Subject},
    policy::{
        Admission, BodyFacts, Connection, Given as GivenFor, HostFacts, Judgement, Policy, RequestContext,
        Scheme, Sniffed, Text, Texts, TunnelTo,
    },
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    given: Given,
    case: Vec<Case>,
}

/// What a policy is made of. A case's own entries take the place of its file's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    /// Text of `policy.toml`.
    policy: Option<String>,
    /// Instead of it, a file below `policies/`.
    policy_file: Option<String>,
    /// Text of the list files.
    allow: Option<String>,
    deny: Option<String>,
    passthrough: Option<String>,
    /// Text of the override file.
    mode: Option<String>,
    /// Addresses of the host's own interfaces.
    own: Option<Vec<IpAddr>>,
    /// Its NAT64 prefixes.
    nat64: Option<Vec<ipnet::Ipv6Net>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    connection: Option<ConnectionCase>,
    request: Option<RequestCase>,
    /// An address and port that a name resolved to.
    address: Option<SocketAddr>,
    answer: Option<AnswerCase>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionCase {
    to: SocketAddr,
    first: First,
    sni: Option<String>,
    #[serde(default)]
    ech: bool,
    dns: Option<Vec<String>>,
}

/// An answer that the DNS server might give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerCase {
    name: String,
    at: IpAddr,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum First {
    Tls,
    Http,
    Opaque,
    Silent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestCase {
    to: SocketAddr,
    sni: Option<String>,
    /// Over TLS unless said otherwise.
    #[serde(default = "yes")]
    tls: bool,
    #[serde(default = "get")]
    method: String,
    #[serde(default = "slash")]
    target: String,
    #[serde(default)]
    http2: bool,
    /// Host headers, in order.
    #[serde(default)]
    host: Vec<String>,
    dns: Option<Vec<String>>,
    /// Its `Content-Length`. At most [`INSPECTED`] bytes of a body are inspected.
    length: Option<u64>,
    /// Why its coding cannot be undone.
    undecodable: Option<String>,
}

/// Bytes of a body that are inspected here.
const INSPECTED: u64 = 1000;

fn yes() -> bool {
    true
}
fn get() -> String {
    "GET".to_owned()
}
fn slash() -> String {
    "/".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// `intercept`, `allow`, `deny` or `passthrough`.
    verdict: Option<String>,
    /// None where left out.
    rule: Option<String>,
    /// All flags, in order; none where left out.
    #[serde(default)]
    flags: Vec<String>,
    status: Option<u16>,
    /// A part of the remedy; an empty one means that there is none.
    remedy: Option<String>,
    /// Where it goes: `name:port` or `address:port`.
    to: Option<String>,
    /// Instead of a verdict: a part of each fault of the policy, in order.
    errors: Option<Vec<String>>,
}

/// What happened, in the words of [`Expect`].
#[derive(Debug, Default)]
struct Found {
    verdict: String,
    rule: String,
    flags: Vec<String>,
    status: Option<u16>,
    remedy: String,
    to: Option<String>,
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn toml_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn compile(defaults: &Given, given: &Given) -> Result<Policy, Vec<String>> {
    let own = given.policy.is_some() || given.policy_file.is_some();
    let source = if own { given } else { defaults };
    let policy = match (&source.policy, &source.policy_file) {
        (Some(text), None) => Some(("policy.toml".to_owned(), text.clone())),
        (None, Some(file)) => Some((file.clone(), fs::read_to_string(policies().join(file)).unwrap())),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("both policy and policy_file"),
    };
    fn list<'a>(file: &'a str, own: &'a Option<String>, default: &'a Option<String>) -> Vec<Text<'a>> {
        own.as_ref().or(default.as_ref()).into_iter().map(|text| Text { file, text }).collect()
    }
    let texts = Texts {
        policy: policy.as_ref().map(|(file, text)| Text { file, text }),
        allow: list("allow.txt", &given.allow, &defaults.allow),
        deny: list("deny.txt", &given.deny, &defaults.deny),
        passthrough: list("passthrough.txt", &given.passthrough, &defaults.passthrough),
        mode: list("mode", &given.mode, &defaults.mode).first().copied(),
    };
    let facts = HostFacts {
        addresses: given.own.as_ref().or(defaults.own.as_ref()).cloned().unwrap_or_default(),
        nat64: given.nat64.as_ref().or(defaults.nat64.as_ref()).cloned().unwrap_or_default(),
    };
    let compiled = Policy::compile(&texts).map(|policy| policy.with_host(&facts));
    compiled.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn subject() -> Subject {
    Subject {
        comm: "case".to_owned(),
        cgroup: "/agent.slice/case".to_owned(),
        ..Subject::unknown(SessionId("case@1".to_owned()), 1, 1000)
    }
}

fn codes(flags: &[Flag]) -> Vec<String> {
    flags.iter().map(|flag| flag.code.clone()).collect()
}

fn refused(refusal: &Refusal) -> Found {
    Found {
        verdict: refusal.verdict.action.as_str().to_owned(),
        rule: refusal.verdict.rule.clone(),
        flags: codes(&refusal.flags),
        status: Some(refusal.status),
        remedy: refusal.remedy.clone(),
        to: None,
    }
}

/// The names that an address was given for; `None`: it never was.
fn told(dns: Option<&[String]>, otherwise: Option<&Host>) -> Option<Vec<Host>> {
    match dns {
        Some([]) => None,
        Some(names) => Some(names.iter().map(|name| Host::parse(name).unwrap()).collect()),
        None => Some(otherwise.cloned().into_iter().collect()),
    }
}

fn admit(policy: &Policy, case: &ConnectionCase) -> Found {
    let sni = case.sni.as_deref().map(|sni| Host::parse(sni).unwrap());
    let told = told(case.dns.as_deref(), sni.as_ref());
    let given = GivenFor::of(told.as_deref());
    let sniffed = match case.first {
        First::Tls => Sniffed::Tls { sni: sni.as_ref(), ech: case.ech },
        First::Http => Sniffed::Http,
        First::Opaque => Sniffed::Opaque,
        First::Silent => Sniffed::Silent,
    };
    match policy.admit(&Connection { original: case.to, sniffed, given, subject: &subject() }) {
        Admission::Intercept(_) => Found { verdict: "intercept".to_owned(), ..Found::default() },
        Admission::Deny(refusal) => refused(&refusal),
        Admission::Tunnel(permit) => Found {
            verdict: permit.verdict().action.as_str().to_owned(),
            rule: permit.verdict().rule.clone(),
            flags: codes(permit.flags()),
            to: Some(match permit.to() {
                TunnelTo::Name(authority) => authority.to_string(),
                TunnelTo::Address(address) => address.to_string(),
            }),
            ..Found::default()
        },
    }
}

fn judge(policy: &Policy, case: &RequestCase) -> Found {
    let sni = case.sni.as_deref().map(|sni| Host::parse(sni).unwrap());
    let version = if case.http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
    let request = http::Request::builder().method(case.method.as_str()).uri(&case.target).version(version);
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    for host in &case.host {
        head.headers.append("host", http::HeaderValue::from_bytes(host.as_bytes()).unwrap());
    }
    let subject = subject();
    let scheme = if case.tls { Scheme::Https } else { Scheme::Http };
    let hosts = head.uri.host().into_iter().chain(case.host.iter().filter_map(|host| host.split(':').next()));
    let named = hosts.filter_map(|host| Host::parse(host).ok()).next();
    let told = told(case.dns.as_deref(), sni.as_ref().or(named.as_ref()));
    let given = GivenFor::of(told.as_deref());
    if let Some(length) = case.length {
        head.headers.insert("content-length", length.into());
    }
    let body = BodyFacts { most: INSPECTED, undecodable: case.undecodable.as_deref() };
    let sni = sni.as_ref();
    let context = RequestContext { original: case.to, scheme, sni, given, subject: &subject, body };
    match policy.judge(context, head) {
        Judgement::Deny { refusal, .. } => refused(&refusal),
        Judgement::Allow(permit) => Found {
            verdict: permit.verdict().action.as_str().to_owned(),
            rule: permit.verdict().rule.clone(),
            flags: codes(permit.flags()),
            to: Some(permit.destination().authority.to_string()),
            ..Found::default()
        },
    }
}

fn resolved(policy: &Policy, address: SocketAddr) -> Found {
    let rule = policy.addresses();
    match rule.admits(address.ip(), address.port()) {
        Ok(()) => Found {
            verdict: "allow".to_owned(),
            flags: codes(&rule.flags(address.ip(), address.port())),
            ..Found::default()
        },
        Err(refusal) => refused(&refusal),
    }
}

fn answered(policy: &Policy, case: &AnswerCase) -> Found {
    match policy.admits_answer(case.at, &Host::parse(&case.name).unwrap()) {
        Ok(()) => Found { verdict: "allow".to_owned(), ..Found::default() },
        Err(refusal) => refused(&refusal),
    }
}

/// What differs, in words; empty when nothing does.
fn differences(expect: &Expect, found: &Found) -> Vec<String> {
    let mut differences = Vec::new();
    let mut check = |what: &str, expect: &str, found: &str, same: bool| {
        if !same {
            differences.push(format!("{what}: expected {expect:?}, found {found:?}"));
        }
    };
    let verdict = expect.verdict.as_deref().unwrap_or_default();
    check("verdict", verdict, &found.verdict, verdict == found.verdict);
    // A connection that is intercepted, and an address that may be dialled, has no rule yet.
    let rule = expect.rule.as_deref().unwrap_or_default();
    check("rule", rule, &found.rule, rule == found.rule);
    check("flags", &expect.flags.join(" "), &found.flags.join(" "), expect.flags == found.flags);
    if let Some(status) = expect.status {
        check("status", &status.to_string(), &format!("{:?}", found.status), Some(status) == found.status);
    }
    if let Some(remedy) = &expect.remedy {
        let same =
            if remedy.is_empty() { found.remedy.is_empty() } else { found.remedy.contains(remedy.as_str()) };
        check("remedy", remedy, &found.remedy, same);
    }
    if let Some(to) = &expect.to {
        check("to", to, found.to.as_deref().unwrap_or_default(), Some(to) == found.to.as_ref());
    }
    differences
}

fn run(defaults: &Given, case: &Case) -> Vec<String> {
    let policy = match (compile(defaults, &case.given), &case.expect.errors) {
        (Ok(policy), None) => policy,
        (Ok(_), Some(_)) => return vec!["the policy compiles".to_owned()],
        (Err(errors), None) => return errors,
        (Err(errors), Some(expected)) => {
            let same = errors.len() == expected.len()
                && errors.iter().zip(expected).all(|(found, part)| found.contains(part.as_str()));
            return if same { Vec::new() } else { errors };
        }
    };
    let found = match (&case.connection, &case.request, case.address, &case.answer) {
        (Some(connection), None, None, None) => admit(&policy, connection),
        (None, Some(request), None, None) => judge(&policy, request),
        (None, None, Some(address), None) => resolved(&policy, address),
        (None, None, None, Some(answer)) => answered(&policy, answer),
        _ => return vec!["a case has one of connection, request, address and answer".to_owned()],
    };
    differences(&case.expect, &found)
}

#[test]
fn every_case_holds() {
    let files = toml_files(&policies().join("cases"));
    assert!(!files.is_empty(), "there are no cases");
    let mut names = BTreeSet::new();
    let mut failures = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let cases: CaseFile = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!cases.case.is_empty(), "{stem} has no case");
        for case in &cases.case {
            assert!(names.insert(format!("{stem}: {}", case.name)), "{stem}: {:?} twice", case.name);
            for difference in run(&cases.given, case) {
                failures.push(format!("{stem}: {}: {difference}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} cases, and these differ:\n{}", names.len(), failures.join("\n"));
    assert!(names.len() >= 60, "only {} cases", names.len());
}

/// Every policy that ships compiles, and has a file of cases that uses it.
#[test]
fn what_ships_compiles_and_has_cases() {
    let examples = toml_files(&policies().join("examples"));
    assert!(!examples.is_empty());
    for path in examples.iter().chain([&policies().join("default.toml")]) {
        let text = fs::read_to_string(path).unwrap();
        let texts = Texts { policy: Some(Text { file: "policy.toml", text: &text }), ..Texts::default() };
        if let Err(errors) = Policy::compile(&texts) {
            panic!("{}: {errors:?}", path.display());
        }
        let name = path.file_name().unwrap().to_string_lossy();
        let cases = policies().join("cases").join(&*name);
        let covered = fs::read_to_string(&cases).unwrap_or_else(|e| panic!("{}: {e}", cases.display()));
        assert!(covered.contains(&*name), "{} does not use it", cases.display());
    }
}

/// The runner itself: an expectation that is wrong in any one way is found out.
#[test]
fn a_wrong_expectation_fails() {
    let case = |expect: &str| -> Case {
        let text = format!(
            "name = 'x'\nrequest = {{ to = '203.0.113.7:443', sni = 'a.example', host = ['a.example'] }}\n\
             expect = {{ {expect} }}\n"
        );
        toml::from_str(&text).unwrap()
    };
    let right = "verdict = 'deny', rule = 'mode:enforce', flags = ['host_not_allowlisted']";
    assert_eq!(run(&Given::default(), &case(right)), [""; 0]);
    for wrong in [
        "",
        "verdict = 'allow', rule = 'mode:enforce', flags = ['host_not_allowlisted']",
        "verdict = 'deny', rule = 'mode:audit', flags = ['host_not_allowlisted']",
        "verdict = 'deny', rule = 'mode:enforce'",
        &format!("{right}, status = 421"),
        &format!("{right}, remedy = 'reboot'"),
        &format!("{right}, remedy = ''"),
        &format!("{right}, to = 'a.example:443'"),
        "errors = []",
    ] {
        assert!(!run(&Given::default(), &case(wrong)).is_empty(), "{wrong}");
    }
}
