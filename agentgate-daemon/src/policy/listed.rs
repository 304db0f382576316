//! Where a host stands in the three lists, for people who look and edit; judging does not ask here.

use super::{
    HostPattern, Policy,
    matcher::{HostSet, Written},
};
use crate::model::Host;

/// A pattern that covers a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pattern: HostPattern,
    /// It stands in the list's file only, so an edit of the list takes it back; else in `policy.toml`.
    pub in_list_file: bool,
}

/// The most specific pattern of each list that covers a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub allow: Option<Entry>,
    pub deny: Option<Entry>,
    pub passthrough: Option<Entry>,
}

impl Policy {
    /// Where `host` at `port` stands in the lists.
    #[must_use]
    pub fn listed(&self, host: &Host, port: u16) -> Listed {
        let find = |set: &HostSet| {
            let hit = set.find(host, port)?;
            Some(Entry { pattern: hit.pattern, in_list_file: hit.written == Written::List })
        };
        Listed {
            allow: find(&self.lists.allow),
            deny: find(&self.addresses.deny),
            passthrough: find(&self.lists.passthrough),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Text, Texts};

    #[test]
    fn says_which_pattern_and_where_it_was_written() {
        let texts = Texts {
            policy: Some(Text {
                file: "policy.toml",
                text: "version = 1\n[hosts]\ndeny = [\"*.bad.test\"]\n",
            }),
            allow: vec![Text { file: "allow.txt", text: "a.test\n*.b.test:8443\n" }],
            ..Texts::default()
        };
        let policy = Policy::compile(&texts).unwrap();
        let at = |host: &str, port| policy.listed(&Host::parse(host).unwrap(), port);
        let shown = |entry: Option<Entry>| entry.map(|entry| (entry.pattern.to_string(), entry.in_list_file));
        assert_eq!(shown(at("a.test", 443).allow), Some(("a.test".into(), true)));
        assert_eq!(shown(at("x.b.test", 8443).allow), Some(("*.b.test:8443".into(), true)));
        assert_eq!(shown(at("x.b.test", 443).allow), None);
        assert_eq!(shown(at("x.bad.test", 443).deny), Some(("*.bad.test".into(), false)));
        assert_eq!(at("a.test", 443).passthrough, None);
    }
}
