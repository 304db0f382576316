//! Sets of host patterns, looked up by hash: the cost of a lookup depends on the number of labels in
//! the name, not on the number of patterns.

use std::collections::{BTreeMap, HashMap};

use super::{
    name::Queried,
    pattern::{HostPattern, NamePattern},
};
use crate::model::Host;

/// Where a pattern was written: it decides how it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Written {
    /// In `policy.toml`, which only people edit.
    Document,
    /// In a list file, which `agentctl` edits.
    List,
}

/// A pattern that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) pattern: HostPattern,
    pub(super) written: Written,
}

/// The ports for which one name pattern is listed.
#[derive(Clone, Debug, Default)]
struct Ports {
    every: Option<Written>,
    only: BTreeMap<u16, Written>,
}

impl Ports {
    fn find(&self, port: u16) -> Option<(Option<u16>, Written)> {
        match self.only.get(&port) {
            Some(written) => Some((Some(port), *written)),
            None => self.every.map(|written| (None, written)),
        }
    }

    fn all(&self) -> Option<(Option<u16>, Written)> {
        self.every.map(|written| (None, written))
    }

    fn some(&self) -> Option<(Option<u16>, Written)> {
        self.all().or_else(|| self.only.first_key_value().map(|(port, written)| (Some(*port), *written)))
    }
}

/// A set of host patterns.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSet {
    exact: HashMap<Host, Ports>,
    /// Keyed by what stands after `*.`.
    below: HashMap<Box<str>, Ports>,
    any: Ports,
    len: usize,
}

impl HostSet {
    /// Adds a pattern. The same pattern twice counts once; where it was written in both places the
    /// document is remembered, because editing the list would not take it back.
    pub(super) fn insert(&mut self, pattern: HostPattern, written: Written) {
        let ports = match pattern.name {
            NamePattern::Any => &mut self.any,
            NamePattern::Below(parent) => self.below.entry(parent.as_str().into()).or_default(),
            NamePattern::Exact(host) => self.exact.entry(host).or_default(),
        };
        let seen = match pattern.port {
            None => ports.every.replace(ports.every.map_or(written, |before| before.min(written))).is_some(),
            Some(port) => {
                let before = ports.only.get(&port).copied();
                ports.only.insert(port, before.map_or(written, |before| before.min(written)));
                before.is_some()
            }
        };
        self.len += usize::from(!seen);
    }

    /// Number of different patterns.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most specific pattern that covers `host` at `port`: the name itself, then the longest
    /// parent, then `*`; for each of them its own port before every port.
    pub(super) fn find(&self, host: &Host, port: u16) -> Option<Hit> {
        if let Some(hit) = self.find_exact(host, port) {
            return Some(hit);
        }
        for parent in parents(host) {
            if let Some((port, written)) = self.below.get(parent).and_then(|ports| ports.find(port)) {
                // A parent of a normalised name is a normalised name.
                let parent = Host::parse(parent).ok()?;
                return Some(Hit {
                    pattern: HostPattern { name: NamePattern::Below(parent), port },
                    written,
                });
            }
        }
        let (port, written) = self.any.find(port)?;
        Some(Hit { pattern: HostPattern { name: NamePattern::Any, port }, written })
    }

    /// The most specific pattern that covers a name at every port.
    pub(super) fn covers_every_port(&self, name: Queried<'_>) -> Option<Hit> {
        self.covers(name, Ports::all)
    }

    /// The most specific pattern that covers a name at some port.
    pub(super) fn covers_some_port(&self, name: Queried<'_>) -> Option<Hit> {
        self.covers(name, Ports::some)
    }

    fn covers(&self, name: Queried<'_>, pick: fn(&Ports) -> Option<(Option<u16>, Written)>) -> Option<Hit> {
        let (exact, itself, host) = match name {
            Queried::Host(host) => (self.exact.get(host).and_then(pick), None, Some(host)),
            Queried::Below(host) => (None, Some(host.as_str()), Some(host)),
            Queried::Other => (None, None, None),
        };
        if let (Some((port, written)), Some(host)) = (exact, host) {
            return Some(Hit {
                pattern: HostPattern { name: NamePattern::Exact(host.clone()), port },
                written,
            });
        }
        for parent in itself.into_iter().chain(host.into_iter().flat_map(parents)) {
            if let Some((port, written)) = self.below.get(parent).and_then(pick) {
                // A parent of a normalised name is a normalised name.
                let parent = Host::parse(parent).ok()?;
                return Some(Hit {
                    pattern: HostPattern { name: NamePattern::Below(parent), port },
                    written,
                });
            }
        }
        let (port, written) = pick(&self.any)?;
        Some(Hit { pattern: HostPattern { name: NamePattern::Any, port }, written })
    }

    /// A pattern that names `host` itself, without wildcards.
    pub(super) fn find_exact(&self, host: &Host, port: u16) -> Option<Hit> {
        let (port, written) = self.exact.get(host)?.find(port)?;
        Some(Hit { pattern: HostPattern { name: NamePattern::Exact(host.clone()), port }, written })
    }

    /// Every pattern, sorted, so that equal sets give equal texts.
    pub(super) fn patterns(&self) -> Vec<(HostPattern, Written)> {
        let exact = self.exact.iter().map(|(host, ports)| (NamePattern::Exact(host.clone()), ports));
        let below = self
            .below
            .iter()
            .filter_map(|(parent, ports)| Some((NamePattern::Below(Host::parse(parent).ok()?), ports)));
        let mut all = Vec::with_capacity(self.len);
        for (name, ports) in exact.chain(below).chain([(NamePattern::Any, &self.any)]) {
            let every = ports.every.map(|written| (None, written));
            let only = ports.only.iter().map(|(port, written)| (Some(*port), *written));
            all.extend(
                every.into_iter().chain(only).map(|(port, w)| (HostPattern { name: name.clone(), port }, w)),
            );
        }
        all.sort();
        all
    }
}

/// The parents of a name, longest first; none for an address.
fn parents(host: &Host) -> impl Iterator<Item = &str> {
    let name = if host.as_ip().is_some() { "" } else { host.as_str() };
    name.match_indices('.').filter_map(move |(dot, _)| name.get(dot + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> HostSet {
        let mut set = HostSet::default();
        for pattern in patterns {
            set.insert(pattern.parse().unwrap(), Written::List);
        }
        set
    }

    #[test]
    fn finds_the_most_specific() {
        let set = set(&[
            "example.com",
            "example.com:8443",
            "*.example.com",
            "*.deep.example.com:443",
            "203.0.113.7",
            "2001:db8::1",
            "*:22",
        ]);
        for (host, port, expect) in [
            ("example.com", 443, Some("example.com")),
            ("example.com", 8443, Some("example.com:8443")),
            ("a.example.com", 443, Some("*.example.com")),
            ("a.b.c.example.com", 80, Some("*.example.com")),
            ("x.deep.example.com", 443, Some("*.deep.example.com:443")),
            ("x.deep.example.com", 80, Some("*.example.com")),
            ("deep.example.com", 443, Some("*.example.com")),
            ("notexample.com", 443, None),
            ("example.com.evil.test", 443, None),
            ("com", 443, None),
            ("elsewhere.test", 22, Some("*:22")),
            ("203.0.113.7", 80, Some("203.0.113.7")),
            ("203.0.113.8", 80, None),
            ("2001:db8::1", 443, Some("2001:db8::1")),
        ] {
            let hit = set.find(&Host::parse(host).unwrap(), port);
            assert_eq!(hit.map(|hit| hit.pattern.to_string()).as_deref(), expect, "{host}:{port}");
        }
        assert_eq!(set.len(), 7);
    }

    #[test]
    fn same_pattern_counts_once_and_the_document_is_remembered() {
        let mut set = set(&["a.test", "A.TEST.", "*", "*", "b.test:1", "b.test:1"]);
        assert_eq!(set.len(), 3);
        set.insert("a.test".parse().unwrap(), Written::Document);
        set.insert("a.test".parse().unwrap(), Written::List);
        assert_eq!(set.len(), 3);
        assert_eq!(set.find(&Host::parse("a.test").unwrap(), 1).unwrap().written, Written::Document);
        assert_eq!(set.patterns().len(), 3);
    }

    /// What `find` probes is the name, its parents and `*`: a function of the name alone.
    #[test]
    fn probes_depend_on_the_name_not_on_the_set() {
        let probes: Vec<String> =
            parents(&Host::parse("a.b.example.com").unwrap()).map(str::to_owned).collect();
        assert_eq!(probes, ["b.example.com", "example.com", "com"]);
        assert_eq!(parents(&Host::parse("203.0.113.7").unwrap()).count(), 0);
        assert_eq!(parents(&Host::parse("localhost").unwrap()).count(), 0);
        // The longest name there can be has 127 labels.
        let longest = format!("{}a", "a.".repeat(126));
        assert_eq!(parents(&Host::parse(&longest).unwrap()).count(), 126);

        let mut large = HostSet::default();
        for n in 0..20_000 {
            large.insert(format!("host{n}.example").parse().unwrap(), Written::List);
            large.insert(format!("*.zone{n}.example").parse().unwrap(), Written::List);
        }
        assert_eq!(large.len(), 40_000);
        for n in (0..20_000).step_by(997) {
            let host = Host::parse(&format!("a.b.zone{n}.example")).unwrap();
            assert_eq!(large.find(&host, 443).unwrap().pattern.to_string(), format!("*.zone{n}.example"));
            assert_eq!(large.find(&Host::parse(&format!("zone{n}.example")).unwrap(), 443), None);
            let host = Host::parse(&format!("host{n}.example")).unwrap();
            assert_eq!(large.find(&host, 443).unwrap().pattern.to_string(), host.to_string());
        }
    }
}
