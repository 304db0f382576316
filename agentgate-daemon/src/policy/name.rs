//! The judgement of a name that is asked for, before anything is asked: a question carries its name to
//! whoever runs the name's zone, so a name that may not be reached may not be asked for either.

use std::net::IpAddr;

use super::{
    Policy,
    refusal::{self, would_block},
};
use crate::model::{Action, Flag, Host, Mode, Refusal, Severity, Verdict};

/// A name as policy sees it. Names in DNS are any bytes; policy knows hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queried<'a> {
    /// A name that could be a host's.
    Host(&'a Host),
    /// A name that could not, below one that could: `*.example.com` asked for literally, or labels with
    /// odd bytes. Patterns for everything below that host cover it.
    Below(&'a Host),
    /// A name without any such parent: the root, `1.2.3.4`, odd bytes. Only `*` covers it.
    Other,
}

/// What happens to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameVerdict {
    /// It is answered.
    Allow { verdict: Verdict, flags: Vec<Flag> },
    /// It is not, and nothing leaves the host.
    Refuse(Refusal),
}

impl Policy {
    /// Judges the name of a question, whatever port it is to be used with.
    #[must_use]
    pub fn judge_name(&self, name: &Host) -> NameVerdict {
        self.judge_question(Queried::Host(name))
    }

    /// Judges any name of a question, in the order of the policy language. A pattern of the deny list
    /// for one port refuses that port, not the name; a pattern that allows some port allows the name.
    #[must_use]
    pub fn judge_question(&self, name: Queried<'_>) -> NameVerdict {
        if let Some(hit) = self.addresses.deny.covers_every_port(name) {
            return self.refuse(refusal::denied(&hit));
        }
        let lists = [
            ("passthrough", &self.lists.passthrough),
            ("allow", &self.lists.allow),
            ("opaque_tcp", &self.lists.opaque),
        ];
        for (list, set) in lists {
            if let Some(hit) = set.covers_some_port(name) {
                let pattern = hit.pattern;
                return allow(
                    format!("{list}:{pattern}"),
                    format!("the {list} list has {pattern}"),
                    Vec::new(),
                );
            }
        }
        match self.mode {
            Mode::Enforce => NameVerdict::Refuse(unlisted(name)),
            Mode::Blocklist | Mode::Audit => {
                let flag = (!self.lists.allow.is_empty()).then(|| not_allowlisted(name));
                let reason = format!("no list has {}, and the mode is {}", described(name), self.mode);
                allow(format!("mode:{}", self.mode), reason, flag.into_iter().collect())
            }
        }
    }

    /// What to flag where `host` is told to be at `ip` although it would not be outside `audit`.
    #[must_use]
    pub fn answer_flags(&self, ip: IpAddr, host: &Host) -> Vec<Flag> {
        let refused =
            self.addresses.refused_class(ip).filter(|_| self.addresses.entries(ip).next().is_none());
        match (self.mode, refused) {
            (Mode::Audit, Some(class)) => vec![would_block(&refusal::answer(host, ip, class))],
            (Mode::Audit | Mode::Enforce | Mode::Blocklist, _) => Vec::new(),
        }
    }

    /// A refusal, or what `audit` makes of it.
    fn refuse(&self, refusal: Refusal) -> NameVerdict {
        match self.mode {
            Mode::Enforce | Mode::Blocklist => NameVerdict::Refuse(refusal),
            Mode::Audit => {
                let mut flags = refusal.flags.clone();
                flags.push(would_block(&refusal));
                let reason = format!("the mode is audit; otherwise: {}", refusal.verdict.reason);
                allow(format!("mode:{}", Mode::Audit), reason, flags)
            }
        }
    }
}

fn allow(rule: String, reason: String, flags: Vec<Flag>) -> NameVerdict {
    NameVerdict::Allow { verdict: Verdict { action: Action::Allow, rule, reason }, flags }
}

fn described(name: Queried<'_>) -> String {
    match name {
        Queried::Host(host) => host.to_string(),
        Queried::Below(host) => format!("this name below {host}"),
        Queried::Other => "this name".to_owned(),
    }
}

fn unlisted(name: Queried<'_>) -> Refusal {
    let verdict = Verdict {
        action: Action::Deny,
        rule: format!("mode:{}", Mode::Enforce),
        reason: format!("{} is not on the allow list, and the mode is enforce", described(name)),
    };
    let remedy = match name {
        Queried::Host(host) => format!("agentctl allow {host}"),
        Queried::Below(host) => format!("agentctl allow '*.{host}'"),
        Queried::Other => String::new(),
    };
    Refusal { verdict, flags: vec![not_allowlisted(name)], status: 403, remedy }
}

fn not_allowlisted(name: Queried<'_>) -> Flag {
    Flag::new("host_not_allowlisted", Severity::Low, format!("{} is on no list", described(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Text, Texts};

    fn policy(text: &str) -> Policy {
        let document = Text { file: "policy.toml", text };
        Policy::compile(&Texts { policy: Some(document), ..Texts::default() }).unwrap()
    }

    #[test]
    fn names_are_judged_in_the_order_of_the_language() {
        let lists = "[hosts]\nallow = [\"api.example.com:443\", \"*.cdn.test\", \"a.deny.test\"]\n\
                     passthrough = [\"raw.test\"]\ndeny = [\"*.deny.test\", \"half.test:25\"]\n\
                     [network]\nopaque_tcp = [{ host = \"git.test\", port = 22 }]\n";
        let host = |name: &str| Host::parse(name).unwrap();
        for (mode, name, below, expect) in [
            ("enforce", "api.example.com", false, "allow:api.example.com:443"),
            ("enforce", "api.example.com", true, "!mode:enforce"),
            ("enforce", "cdn.test", false, "!mode:enforce"),
            ("enforce", "cdn.test", true, "allow:*.cdn.test"),
            ("enforce", "x.y.cdn.test", false, "allow:*.cdn.test"),
            ("enforce", "_x.y.cdn.test", true, "allow:*.cdn.test"),
            ("enforce", "raw.test", false, "passthrough:raw.test"),
            ("enforce", "git.test", false, "opaque_tcp:git.test:22"),
            ("enforce", "other.test", false, "!mode:enforce"),
            ("blocklist", "other.test", false, "mode:blocklist+host_not_allowlisted"),
            ("blocklist", "a.deny.test", false, "!deny:*.deny.test"),
            ("blocklist", "deny.test", true, "!deny:*.deny.test"),
            ("blocklist", "deny.test", false, "mode:blocklist+host_not_allowlisted"),
            ("blocklist", "half.test", false, "mode:blocklist+host_not_allowlisted"),
            ("audit", "a.deny.test", false, "mode:audit+host_denylisted+would_block"),
        ] {
            let policy = policy(&format!("version = 1\nmode = \"{mode}\"\n{lists}"));
            let host = host(name);
            let queried = if below { Queried::Below(&host) } else { Queried::Host(&host) };
            let got = match policy.judge_question(queried) {
                NameVerdict::Allow { verdict, flags } => {
                    let codes: String = flags.iter().map(|flag| format!("+{}", flag.code)).collect();
                    verdict.rule + &codes
                }
                NameVerdict::Refuse(refusal) => format!("!{}", refusal.verdict.rule),
            };
            assert_eq!(got, expect, "{mode} {name} {below}");
        }
    }

    #[test]
    fn what_is_no_host_is_covered_by_the_star_only() {
        let all = policy("version = 1\nmode = \"enforce\"\n[hosts]\nallow = [\"*\"]\n");
        assert!(matches!(all.judge_question(Queried::Other), NameVerdict::Allow { .. }));
        let some = policy("version = 1\nmode = \"enforce\"\n[hosts]\nallow = [\"*.test\"]\n");
        assert!(matches!(some.judge_question(Queried::Other), NameVerdict::Refuse(_)));
        assert!(matches!(Policy::closed().judge_question(Queried::Other), NameVerdict::Refuse(_)));
    }
}
