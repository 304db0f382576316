//! One question: read, judged, answered. The spine of the server; every way out leaves a record, or is
//! counted in one.
//!
//! A question that leaves the host is recorded before it leaves, because its name may carry anything;
//! one that does not is recorded before its answer leaves.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Record as Resource, RecordType},
};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use tokio::time::timeout;

use super::{
    Server,
    counted::{Asking, Told},
    given::{self, Admits, Given},
    local,
    message::{self, Question, Received, Reply, code_word, ede, kind_word},
    name::{self, Asked},
};
use crate::{
    audit::AuditError,
    model::{
        Action, Failure, Flag, Flow, Kind, Mode, Question as Recorded, Record, RecordId, Refusal, Severity,
        State, Subject, Timestamp, Verdict,
    },
    policy::{NameVerdict, Policy},
};

/// Longest that all resolvers together may take: a client gives up after 5 seconds (resolv.conf(5)) and
/// asks again, which meets what came in late in the cache.
const PATIENCE: Duration = Duration::from_secs(8);

/// Who asks, and how.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) flow: Flow,
    pub(super) subject: Arc<Subject>,
    /// `udp` or `tcp`.
    pub(super) transport: &'static str,
    /// The record of the connection.
    pub(super) parent: Option<RecordId>,
}

/// A question on its way into the log.
struct Draft {
    record: Record,
    asking: Asking,
    clock: Instant,
}

/// What an agent is told, and what the record says of it.
struct Outcome {
    reply: Reply,
    given: Given,
    state: State,
    failure: Option<Failure>,
}

/// Bytes that an answer over TCP may have.
const TCP_LIMIT: usize = u16::MAX as usize;

impl Server {
    /// The answer to what `asker` sent, `None` where it gets none.
    ///
    /// # Errors
    /// Where the question could not be recorded: it was not asked, or its answer must not leave.
    pub(super) async fn ask(&self, bytes: &[u8], asker: &Asker) -> Result<Option<Vec<u8>>, AuditError> {
        let mut draft = Draft::new(asker);
        let question = match message::read(bytes) {
            Received::Question(question) => question,
            Received::Unusable { why, code, reply } => {
                draft.refused("invariant:bad_question", why);
                self.note(draft, code, &Given::default()).await?;
                return Ok(reply);
            }
        };
        if !self.tunnels.has_room(asker.flow.session) {
            // All of a session are counted together: no name, no type.
            let reply = Reply::code(ResponseCode::Refused);
            draft.refused("gate:too_many_questions", "the session asks more than any client would");
            draft.record.flags.push(Flag::new(
                "too_many_questions",
                Severity::Medium,
                "more than a hundred questions a second",
            ));
            self.note(draft, reply.code, &Given::default()).await?;
            return Ok(question.write(&reply, question.udp_limit()));
        }
        let limit = if asker.transport == "tcp" { TCP_LIMIT } else { question.udp_limit() };
        let text = name::text(&question.name);
        draft.asks(&text, &kind_word(question.kind));
        if let Some(local) = local::answer(&question, &text) {
            let reply = local.reply;
            if local.refused {
                draft.refused(local.rule, local.reason);
            } else {
                draft.verdict(Action::Allow, local.rule, local.reason);
            }
            self.note(draft, reply.code, &Given::default()).await?;
            return Ok(question.write(&reply, limit));
        }
        let asked = Asked::of(&text);
        let policy = self.policy.current();
        let suspicion = self.tunnels.look(asker.flow.session, &question.name, question.kind);
        draft.record.flags.extend(suspicion.flags);
        match policy.judge_question(asked.queried()) {
            NameVerdict::Refuse(refusal) => {
                let reply = Reply::extended(ResponseCode::NXDomain, ede::BLOCKED, "refused by policy");
                draft.record.state = State::Refused;
                draft.record.verdict = Some(refusal.verdict);
                draft.record.flags.extend(refusal.flags);
                self.note(draft, reply.code, &Given::default()).await?;
                Ok(question.write(&reply, limit))
            }
            NameVerdict::Allow { verdict, flags } => {
                draft.record.verdict = Some(verdict);
                draft.record.flags.extend(flags);
                if let Some(reason) = suspicion.refused {
                    if policy.mode() != Mode::Audit {
                        let reply =
                            Reply::extended(ResponseCode::Refused, ede::BLOCKED, "too many new names");
                        draft.refused("gate:dns_tunnel", &reason);
                        // Each name is another one: counted together, or the log is what grows.
                        draft.asking.name.clear();
                        self.note(draft, reply.code, &Given::default()).await?;
                        return Ok(question.write(&reply, limit));
                    }
                    let evidence = format!("gate:dns_tunnel: {reason}");
                    draft.record.flags.push(Flag::new("would_block", Severity::Medium, evidence));
                }
                let outcome = self.look_up(draft, &question, &asked, &policy).await?;
                // Before the answer leaves: the agent connects as soon as it has it.
                if let Some(host) = asked.host()
                    && !outcome.given.addresses.is_empty()
                {
                    self.answers.remember(&asker.subject.session, host, &outcome.given.addresses);
                }
                Ok(question.write(&outcome.reply, limit))
            }
        }
    }

    /// Asks upstream. Recorded first, unless the same was recorded seconds ago.
    async fn look_up(
        &self,
        mut draft: Draft,
        question: &Question,
        asked: &Asked,
        policy: &Arc<Policy>,
    ) -> Result<Outcome, AuditError> {
        let known = self.counted.knows(&draft.asking);
        let entry = if known { None } else { Some(self.audit.open(draft.record.clone()).await?) };
        let answered = timeout(PATIENCE, self.resolver.answer(question.name.clone(), question.kind)).await;
        let rule = Rule { policy, asked };
        let outcome = match answered {
            Ok(Ok(found)) => told(found.answers(), question.kind, &rule),
            Ok(Err(error)) => untold(&error),
            Err(_elapsed) => {
                let reply = Reply::extended(
                    ResponseCode::ServFail,
                    ede::NO_REACHABLE_AUTHORITY,
                    "no resolver answered",
                );
                failed(reply, "dns_timeout", format!("no resolver answered within {} s", PATIENCE.as_secs()))
            }
        };
        draft.record.state = outcome.state;
        draft.record.failure = outcome.failure.clone();
        match entry {
            None => self.note(draft, outcome.reply.code, &outcome.given).await?,
            Some(entry) => {
                let told = draft.answered(outcome.reply.code, &outcome.given);
                entry.finish_with(|record| {
                    record.verdict = draft.record.verdict;
                    record.flags = draft.record.flags;
                    record.failure = draft.record.failure;
                    record.question = draft.record.question;
                    outcome.state
                });
                self.recorded(draft.asking, told).await;
            }
        }
        Ok(outcome)
    }

    /// Records a question that is answered, or counts it.
    async fn note(&self, mut draft: Draft, code: ResponseCode, given: &Given) -> Result<(), AuditError> {
        let told = draft.answered(code, given);
        let Some(record) = self.counted.admit(&draft.asking, &told, draft.record) else {
            return Ok(());
        };
        self.audit.note(record).await?;
        self.recorded(draft.asking, told).await;
        Ok(())
    }

    /// From here on the same is counted; what was counted under another answer is recorded.
    async fn recorded(&self, asking: Asking, told: Told) {
        if let Some(before) = self.counted.recorded(asking, told)
            && let Err(error) = self.audit.note(before).await
        {
            tracing::error!(%error, "questions that were counted are not recorded");
        }
    }
}

impl Draft {
    fn new(asker: &Asker) -> Self {
        let mut record = Record::new(Kind::Dns, Timestamp::now());
        record.parent = asker.parent;
        record.flow = Some(asker.flow.clone().into());
        record.subject = Some(asker.subject.clone());
        record.protocol = "dns".to_owned();
        record.question = Some(Recorded { transport: asker.transport.to_owned(), ..Recorded::default() });
        let asking = Asking {
            session: (asker.flow.session, asker.flow.cgroup),
            transport: asker.transport,
            name: String::new(),
            kind: String::new(),
        };
        Self { record, asking, clock: Instant::now() }
    }

    fn asks(&mut self, name: &str, kind: &str) {
        self.asking.name = name.to_owned();
        self.asking.kind = kind.to_owned();
        let question = self.record.question.get_or_insert_default();
        question.name = name.to_owned();
        question.kind = kind.to_owned();
    }

    fn verdict(&mut self, action: Action, rule: &str, reason: &str) {
        self.record.verdict = Some(Verdict { action, rule: rule.to_owned(), reason: reason.to_owned() });
    }

    fn refused(&mut self, rule: &str, reason: &str) {
        self.verdict(Action::Deny, rule, reason);
        self.record.state = State::Refused;
    }

    /// Fills in what the agent is told.
    fn answered(&mut self, code: ResponseCode, given: &Given) -> Told {
        let code = code_word(code);
        let question = self.record.question.get_or_insert_default();
        question.code.clone_from(&code);
        question.addresses.clone_from(&given.addresses);
        question.answers.clone_from(&given.told);
        question.took_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.record.flags.extend(given.flags.iter().cloned());
        if let Some(verdict) = &given.emptied {
            self.record.verdict = Some(verdict.clone());
        }
        let rule = self.record.verdict.as_ref().map(|verdict| verdict.rule.clone()).unwrap_or_default();
        Told::new(code, rule, given.addresses.clone())
    }
}

/// The address rule of the policy that judged the name.
struct Rule<'a> {
    policy: &'a Policy,
    asked: &'a Asked,
}

impl Admits for Rule<'_> {
    fn admits(&self, ip: IpAddr) -> Result<(), Refusal> {
        match self.asked.named() {
            Some(host) => self.policy.admits_answer(ip, host),
            None => self.policy.addresses().admits(ip, 0),
        }
    }

    fn flags(&self, ip: IpAddr) -> Vec<Flag> {
        self.asked.named().map(|host| self.policy.answer_flags(ip, host)).unwrap_or_default()
    }
}

/// An answer with records.
fn told(answers: &[Resource], kind: RecordType, rule: &dyn Admits) -> Outcome {
    let mut given = given::give(answers, kind, rule);
    if given.emptied.is_some() {
        // NXDOMAIN, so that a client does not go on to look for another type of the same name.
        let reply = Reply::extended(ResponseCode::NXDomain, ede::FILTERED, "the answer points inside");
        given.records.clear();
        return Outcome { reply, given, state: State::Refused, failure: None };
    }
    let mut reply = Reply::code(ResponseCode::NoError);
    reply.answers = std::mem::take(&mut given.records);
    Outcome { reply, given, state: State::Done, failure: None }
}

/// An answer without.
fn untold(error: &NetError) -> Outcome {
    if let NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, soa, .. })) = error
        && matches!(response_code, ResponseCode::NXDomain | ResponseCode::NoError)
    {
        let mut reply = Reply::code(*response_code);
        reply.authorities.extend(soa.as_ref().map(|soa| (**soa).clone().into_record_of_rdata()));
        return Outcome { reply, given: Given::default(), state: State::Done, failure: None };
    }
    let reply =
        Reply::extended(ResponseCode::ServFail, ede::NETWORK_ERROR, "the resolver did not answer well");
    failed(reply, "dns_failed", error.to_string())
}

fn failed(reply: Reply, code: &str, detail: String) -> Outcome {
    let failure = Failure { blame: "origin".to_owned(), code: code.to_owned(), detail };
    Outcome { reply, given: Given::default(), state: State::Failed, failure: Some(failure) }
}
