//! One record with everything that is known of it.

use maud::{Markup, html};

use super::{
    body::body,
    conversation,
    lists::{self, Standing},
    row::{Within, chip, head, is_nowhere, row, status},
};
use crate::{
    dashboard::{
        filter::Params,
        read::{Bodies, Body},
        show::{self, visible},
    },
    filter::{fact_field, fact_value},
    model::{Captured, HeaderFields, Kind, Question, Record, State, Subject, Timestamp},
};

/// What the page shows.
#[derive(Debug)]
pub(in crate::dashboard) struct Detail<'a> {
    pub(in crate::dashboard) record: &'a Record,
    /// Of request and response, where they were asked for.
    pub(in crate::dashboard) bodies: Option<&'a Bodies>,
    /// Where the record's host stands in the lists; empty where it has none.
    pub(in crate::dashboard) lists: &'a [Standing],
    /// Exchanges or questions of a flow, oldest first.
    pub(in crate::dashboard) children: &'a [Record],
    /// There may be more exchanges than `children`.
    pub(in crate::dashboard) more_children: bool,
    pub(in crate::dashboard) csrf: &'a str,
    /// Said once after a change.
    pub(in crate::dashboard) notice: Option<&'a str>,
    pub(in crate::dashboard) now: Timestamp,
}

impl Detail<'_> {
    /// The page's title.
    #[must_use]
    pub(in crate::dashboard) fn title(&self) -> String {
        format!("Record {}", self.record.id)
    }

    /// The page's content.
    #[must_use]
    pub(in crate::dashboard) fn render(&self) -> Markup {
        let r = self.record;
        html! {
            p.crumbs { a href="/" { "Traffic" } " / record " (r.id) }
            @if let Some(notice) = self.notice { p.banner.good role="status" { (notice) } }
            div.headline {
                (chip(r))
                h1 { (headline(r)) }
                (status(r))
            }
            p.meta {
                (r.kind.as_str()) " · "
                time data-local datetime=(r.started) { (show::moment(r.started)) } ", " (show::ago(r.started, self.now))
                @if let (Some(finished), Kind::Flow | Kind::Exchange) = (r.finished, r.kind) { " · took " (show::duration(finished.since(r.started))) }
                @if let Some((up, down)) = show::traffic(r) { " · " (show::size(up)) " up, " (show::size(down)) " down" }
                @if !r.protocol.is_empty() { " · " (visible(&r.protocol)) }
                " · " (r.state.as_str())
            }
            div.columns {
                div.column {
                    @if let Some(question) = &r.question { (self.question(question)) }
                    (self.verdict())
                    (self.pinned())
                    @if let (Some(authority), false) = (&r.authority, self.lists.is_empty()) {
                        (lists::card(&authority.host, self.lists, r.id, self.csrf, self.is_beyond_lists()))
                    }
                    // Without a verdict this column has the room.
                    @if r.verdict.is_none() { (self.connection()) }
                    @if let Some(failure) = &r.failure {
                        section.card.bad {
                            h2 { "Failure" }
                            dl {
                                dt { "Whose" } dd { (visible(&failure.blame)) }
                                dt { "Code" } dd { code { (visible(&failure.code)) } }
                                dt { "Detail" } dd { (visible(&failure.detail)) }
                            }
                        }
                    }
                    @if !r.flags.is_empty() { (self.flags()) }
                    @if !r.facts.is_empty() { (self.facts()) }
                }
                div.column {
                    @if let Some(subject) = &r.subject { (process(subject)) }
                    @if r.verdict.is_some() { (self.connection()) }
                }
            }
            @if r.kind == Kind::Flow { (self.carried()) }
            (self.ask_for_bodies())
            @if let Some(request) = &r.request {
                (message("Request", &format!("{} {} {}", request.method, request.target, request.version),
                    &request.headers, &request.body, self.body(|bodies| &bodies.request), r.state == State::Open, None))
            }
            @if let Some(response) = &r.response {
                (message("Response", &format!("{} {}", response.version, response.status),
                    &response.headers, &response.body, self.body(|bodies| &bodies.response), r.state == State::Open,
                    Some(response.first_byte_us)))
            } @else if r.request.is_some() && r.failure.is_none() && r.state != State::Open {
                section.card { h2 { "Response" } p.dim { "None from the origin." } }
            }
            @if let Some(websocket) = &r.websocket {
                (conversation::conversation(websocket, r.started, self.bodies))
            }
            p.dim.small.signed {
                "On the command line: " code { "agentctl show " (r.id) } ", and its proof: " code { "agentctl audit prove " (r.id) } "."
            }
        }
    }

    /// What to show as a body: of a WebSocket it stands in its own place.
    fn body(&self, of: impl Fn(&Bodies) -> &Body) -> Option<Shown<'_>> {
        match (&self.record.websocket, self.bodies) {
            (Some(_), _) => Some(Shown::Below),
            (None, Some(bodies)) => Some(Shown::Here(of(bodies))),
            (None, None) => None,
        }
    }

    /// A client that does not accept the gate's certificate: what it is, and the way past the gate. Never
    /// taken by itself, because what passes unread is not judged.
    fn pinned(&self) -> Markup {
        let flagged = self.record.flags.iter().any(|flag| flag.code == "pinned_client");
        let Some(authority) = self.record.authority.as_ref().filter(|_| flagged) else { return html! {} };
        let listed =
            self.lists.iter().any(|standing| standing.list == "passthrough" && standing.pattern.is_some());
        html! {
            section.card.bad {
                h2 { "This client does not accept the gate's certificate" }
                p {
                    "It trusts another set of roots, which " code { "agentctl doctor" } " tells, or accepts only "
                    "certificates that it knows. In the second case the gate can let "
                    code { (visible(authority.host.as_str())) } " pass unread: then only connections are recorded."
                }
                @if listed {
                    p.note { "The passthrough list has it: the next connection passes." }
                } @else {
                    form method="post" action="/host" {
                        input type="hidden" name="csrf" value=(self.csrf);
                        input type="hidden" name="record" value=(self.record.id);
                        input type="hidden" name="list" value="passthrough";
                        input type="hidden" name="host" value=(authority.host.as_str());
                        button.passthrough type="submit" { "Pass " (visible(authority.host.as_str())) " through unread" }
                    }
                }
            }
        }
    }

    /// It was refused for what no list changes.
    fn is_beyond_lists(&self) -> bool {
        let rule = self.record.verdict.as_ref().map_or("", |verdict| verdict.rule.as_str());
        // Passthrough is for what is not HTTP.
        rule.starts_with("invariant:") && rule != "invariant:opaque"
    }

    fn question(&self, question: &Question) -> Markup {
        html! {
            section.card {
                h2 { "Question" }
                dl {
                    @if !question.name.is_empty() {
                        dt { "Name" } dd { code { (visible(&question.name)) } }
                        dt { "Type" } dd { (visible(&question.kind)) }
                    }
                    dt { "Over" } dd { (visible(&question.transport)) }
                    @if !question.code.is_empty() {
                        dt { "Answer" } dd { code { (visible(&question.code)) } " after " (show::duration(question.took_us)) }
                    }
                    @if !question.addresses.is_empty() {
                        dt { "Addresses" }
                        dd { @for ip in &question.addresses { code { (ip) } " " } }
                    }
                    @if !question.answers.is_empty() {
                        dt { "Besides" }
                        dd { @for line in &question.answers { p { (visible(line)) } } }
                    }
                    @if self.record.times > 1 { dt { "Asked" } dd { (self.record.times) " times within seconds" } }
                }
            }
        }
    }

    fn verdict(&self) -> Markup {
        let in_document = self.lists.iter().any(|s| s.list == "deny" && s.pattern.is_some() && !s.in_file);
        html! {
            @if let Some(verdict) = &self.record.verdict {
                section.card {
                    h2 { "Verdict" }
                    dl {
                        dt { "Rule" } dd { (found("rule", &verdict.rule)) }
                        dt { "Reason" } dd { (visible(&verdict.reason)) }
                        @if let Some(remedy) = show::remedy(self.record, in_document) {
                            dt { "To allow" }
                            dd { pre { (visible(&remedy)) } }
                        }
                        @if let Some(advice) = show::advice(self.record) {
                            dt { "What helps" }
                            dd { (advice) }
                        }
                    }
                }
            } @else if self.record.kind == Kind::Kernel {
                section.card {
                    h2 { "Verdict" }
                    p { "Refused by the kernel before there was a connection." }
                }
            }
        }
    }

    /// The button that shows the bodies, where there are any that are not shown.
    fn ask_for_bodies(&self) -> Markup {
        let r = self.record;
        let heads = [r.request.as_ref().map(|m| &m.body), r.response.as_ref().map(|m| &m.body)];
        if self.bodies.is_some() || heads.into_iter().flatten().all(|body| body.total == 0) {
            return html! {};
        }
        html! {
            form.card.ask method="post" action=(format!("/records/{}/body", r.id)) {
                input type="hidden" name="csrf" value=(self.csrf);
                p { "Bodies may hold secrets, so they are shown only when asked for. The audit log keeps who asked." }
                button #show-bodies type="submit" { "Show bodies" }
            }
        }
    }

    fn flags(&self) -> Markup {
        html! {
            section.card {
                h2 { "Flags" }
                ul.flags {
                    @for flag in &self.record.flags {
                        li {
                            (pick("flag", &flag.code, &html! { span.flag.(flag.severity.as_str()) { (visible(&flag.code)) } }))
                            " " span.dim { (flag.severity.as_str()) }
                            p { (visible(&flag.evidence)) }
                        }
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        html! {
            section.card {
                h2 { "Facts" }
                dl {
                    @for fact in &self.record.facts {
                        dt { (visible(&fact.name)) }
                        dd { (found(&fact_field(&fact.name), &fact_value(&fact.value))) }
                    }
                }
            }
        }
    }

    fn connection(&self) -> Markup {
        let Some(flow) = &self.record.flow else {
            return html! {};
        };
        let kernel = self.record.kind == Kind::Kernel;
        html! {
            section.card {
                h2 { @if kernel { "Socket" } @else { "Connection" } }
                dl {
                    dt { "Meant for" }
                    dd { @if is_nowhere(flow) { "no address yet" } @else { code { (flow.original.0) } } }
                    @if let (Some(authority), false) = (&self.record.authority, kernel) { dt { "Name" } dd { (pick("host", authority.host.as_str(), &html! { code { (authority) } })) } }
                    @if !self.record.protocol.is_empty() { dt { "Protocol" } dd { (visible(&self.record.protocol)) } }
                    @if let (Some(note), true) = (&self.record.note, kernel) { dt { "Call" } dd { code { (visible(note)) } } }
                    @if let Some(tls) = &self.record.tls {
                        dt { "TLS" }
                        dd {
                            (visible(tls.version.as_deref().unwrap_or("unread")))
                            @for part in [&tls.cipher, &tls.alpn].into_iter().flatten() { ", " (visible(part)) }
                            @if tls.resumed { ", resumed" }
                            @if tls.ech { ", encrypted hello" }
                            @if let Some(version) = &tls.origin_version { "; to the origin " (visible(version)) @if tls.origin_resumed { ", resumed" } }
                        }
                        @if !tls.offered.is_empty() { dt { "Offered" } dd { (visible(&tls.offered.join(", "))) } }
                        dt { "JA4" } dd { code { (visible(&tls.ja4)) } }
                    }
                    @if let (Some(note), Kind::Flow) = (&self.record.note, self.record.kind) { dt { "Said" } dd { (visible(note)) } }
                    dt { "Cookie" } dd { (flow.cookie) }
                    @if let Some(parent) = self.record.parent {
                        dt { "Record" } dd { a href=(format!("/records/{parent}")) { "connection " (parent) } }
                    }
                }
            }
        }
    }

    fn carried(&self) -> Markup {
        let carried = if self.record.protocol == "dns" { "Questions" } else { "Exchanges" };
        html! {
            section.card {
                h2 { (carried) " on this connection" }
                @if self.children.is_empty() {
                    p.dim { "None recorded." }
                } @else {
                    div.table { table.records {
                        caption.sr { (carried) ", oldest first" }
                        (head(None))
                        tbody { @for child in self.children { (row(child, self.now, Within::list(&Params::default()))) } }
                    } }
                }
                @if self.more_children { p.note { "Only the first are listed." } }
            }
        }
    }
}

/// A value that leads to the records that have it.
fn pick(field: &str, value: &str, inner: &Markup) -> Markup {
    Within::list(&Params::default()).pick(field, value, inner)
}

fn found(field: &str, value: &str) -> Markup {
    pick(field, value, &html! { code { (visible(value)) } })
}

/// What was asked of whom, in one line.
fn headline(r: &Record) -> Markup {
    let to = r
        .authority
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| r.flow.as_ref().map(|f| f.original.0.to_string()));
    html! {
        @if let Some(request) = &r.request {
            span.method { (visible(&request.method)) } " "
            span.dim { (visible(&request.scheme)) "://" }
            (r.authority.as_ref().map(|a| plain(&request.scheme, a)).or(to).unwrap_or_default())
            span.path { (visible(&request.target)) }
        } @else if let (Kind::Kernel, Some(flow)) = (r.kind, &r.flow) {
            (show::transport(r))
            @if !is_nowhere(flow) { " to " (flow.original.0) }
        } @else if let Some(question) = show::asked(r) {
            span.method { (visible(&question.kind)) } " " (visible(&question.name))
        } @else if let (Some(note), None) = (&r.note, &r.authority) {
            (visible(note))
        } @else {
            "Connection to " (to.unwrap_or_default())
        }
    }
}

/// An authority without the port that its scheme implies.
fn plain(scheme: &str, authority: &crate::model::Authority) -> String {
    let text = authority.to_string();
    let implied = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return text,
    };
    text.strip_suffix(implied).map(ToOwned::to_owned).unwrap_or(text)
}

fn process(subject: &Subject) -> Markup {
    html! {
        section.card {
            h2 { "Process" }
            dl {
                dt { "Program" }
                dd {
                    @match &subject.exe {
                        Some(exe) => { (found("exe", exe)) }
                        None => { "gone before it could be read" }
                    }
                }
                @if !subject.cmdline.is_empty() {
                    dt { "Command" }
                    dd { pre { @for (at, arg) in subject.cmdline.iter().enumerate() { @if at > 0 { " " } (visible(&quoted(arg))) } } }
                }
                dt { "Process" } dd { (found("pid", &subject.pid.to_string())) " " span.dim { "(" (visible(&subject.comm)) ")" } ", user " (subject.uid) }
                @if !subject.ancestors.is_empty() {
                    dt { "Started by" }
                    dd { ol.ancestors {
                        @for parent in &subject.ancestors {
                            li { code { @if parent.exe.is_empty() { "?" } @else { (visible(&parent.exe)) } } " " span.dim { (parent.pid) } }
                        }
                    } }
                }
                dt { "Session" } dd { (found("session", &subject.session.0)) }
                dt { "cgroup" } dd { code { (visible(&subject.cgroup)) } }
                @if !subject.privileges.is_empty() {
                    dt { "privileges" } dd { (visible(&subject.privileges.join(", "))) }
                }
            }
        }
    }
}

/// An argument as a shell would want it, so that its bounds are seen.
fn quoted(arg: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_./:=@%+,*".contains(c);
    if !arg.is_empty() && arg.chars().all(safe) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

/// Where a body is shown.
#[derive(Clone, Copy, Debug)]
enum Shown<'a> {
    Here(&'a Body),
    /// As messages.
    Below,
}

/// A head with its body.
fn message(
    title: &str,
    line: &str,
    headers: &HeaderFields,
    captured: &Captured,
    shown: Option<Shown<'_>>,
    open: bool,
    first_byte_us: Option<u64>,
) -> Markup {
    let masked = headers.iter().any(|(_, value)| is_masked(value));
    html! {
        section.card.message {
            div.body-head {
                h2 { (title) }
                span.dim { @if let Some(us) = first_byte_us { "first byte after " (show::duration(us)) } }
            }
            pre.line { (visible(line)) }
            @if !headers.is_empty() {
                table.headers {
                    caption.sr { (title) " headers" }
                    tbody {
                        @for (name, value) in headers.iter() {
                            tr {
                                th scope="row" { (visible(name)) }
                                td .masked[is_masked(value)] { (visible(value)) }
                            }
                        }
                    }
                }
                @if masked { p.dim.small { "Secrets are masked before they are stored; the gate forwarded them unchanged." } }
            }
            @match shown {
                Some(Shown::Below) => { p.dim { (show::size(captured.total)) " of WebSocket frames: the messages are below." } }
                Some(Shown::Here(shown)) => { (body(headers, captured, Some(shown), open)) }
                None => { (body(headers, captured, None, open)) }
            }
        }
    }
}

/// Whether the audit log masked the value: it leaves four asterisks where the secret was.
fn is_masked(value: &str) -> bool {
    value.contains("****")
}
