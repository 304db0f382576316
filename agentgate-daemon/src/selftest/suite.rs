//! The published suite: every attempt by name, with what stops it.

use super::{
    attempts,
    report::{Family, Identity, Listed},
    tried::{Attempted, Try},
};

/// Whom an attempt is run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Both: the capability that it may need makes a difference.
    Both,
    /// It needs a capability that an ordinary user has not got.
    Root,
    /// For root it would be another attempt.
    User,
}

impl Who {
    fn identities(self) -> Vec<Identity> {
        match self {
            Self::Both => vec![Identity::Root, Identity::User],
            Self::Root => vec![Identity::Root],
            Self::User => vec![Identity::User],
        }
    }
}

/// A descriptor that an attempt is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inherits {
    /// None but the standard ones.
    Nothing,
    /// A TCP socket that is not connected, as descriptor 9.
    Tcp,
    /// A UDP socket connected to the run's forbidden address, as descriptor 9.
    Udp,
    /// The same as standard input, which `agentctl run` leaves open.
    Input,
}

/// One way round the gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// What it does.
    pub(super) what: &'static str,
    pub(super) who: Who,
    pub(super) run: fn(&mut Try) -> Attempted,
    /// What stops it, and where that differs by kernel.
    pub(super) stopped_by: &'static str,
    /// Why nothing stops it, for what only root can do.
    pub(super) undefended: Option<&'static str>,
    pub(super) inherits: Inherits,
    /// Policy allows the name, so a question with the token may leave if its record is flagged.
    pub(super) flagged: bool,
    /// Somebody outside sends to the run's address too, so that only the token tells whose a packet is.
    pub(super) marked: bool,
    /// Why nothing stops it where the kernel has no BPF LSM.
    pub(super) needs_lsm: Option<&'static str>,
    /// Why nothing stops it where the kernel has no BPF LSM and `agentctl run` did not start it.
    pub(super) needs_launch: Option<&'static str>,
    /// The same holds where the kernel has BPF LSM: no hook of it looks.
    pub(super) past_lsm: bool,
    /// Commands that undo in the host's namespace what the attempt may have done there.
    pub(super) undo: &'static [&'static str],
}

impl Attempt {
    /// One that is like most: tried as root and as a user, with nothing special.
    pub(super) const fn new(
        family: Family,
        name: &'static str,
        what: &'static str,
        stopped_by: &'static str,
        run: fn(&mut Try) -> Attempted,
    ) -> Self {
        Self {
            name,
            family,
            what,
            who: Who::Both,
            run,
            stopped_by,
            undefended: None,
            inherits: Inherits::Nothing,
            flagged: false,
            marked: false,
            needs_lsm: None,
            needs_launch: None,
            past_lsm: false,
            undo: &[],
        }
    }

    pub(super) const fn root(self) -> Self {
        Self { who: Who::Root, ..self }
    }

    pub(super) const fn user(self) -> Self {
        Self { who: Who::User, ..self }
    }

    pub(super) const fn undefended(self, because: &'static str) -> Self {
        Self { undefended: Some(because), ..self }
    }

    pub(super) const fn inherits(self, inherits: Inherits) -> Self {
        Self { inherits, ..self }
    }

    pub(super) const fn flagged(self) -> Self {
        Self { flagged: true, ..self }
    }

    pub(super) const fn marked(self) -> Self {
        Self { marked: true, ..self }
    }

    pub(super) const fn needs_lsm(self, because: &'static str) -> Self {
        Self { needs_lsm: Some(because), ..self }
    }

    pub(super) const fn needs_launch(self, because: &'static str) -> Self {
        Self { needs_launch: Some(because), ..self }
    }

    pub(super) const fn past_lsm(self) -> Self {
        Self { past_lsm: true, ..self }
    }

    pub(super) const fn undo(self, undo: &'static [&'static str]) -> Self {
        Self { undo, ..self }
    }

    pub(super) fn identities(&self) -> Vec<Identity> {
        self.who.identities()
    }
}

/// All of them, by family.
pub(super) fn all() -> Vec<Attempt> {
    attempts::all()
}

/// The one of this name, the allowed request included.
pub(super) fn find(name: &str) -> Option<Attempt> {
    all().into_iter().chain([attempts::ALLOWED_REQUEST]).find(|attempt| attempt.name == name)
}

/// The suite as a table, those with `filter` in their name or family.
#[must_use]
pub fn list(filter: Option<&str>) -> Vec<Listed> {
    matching(filter)
        .into_iter()
        .map(|attempt| Listed {
            attempt: attempt.name.to_owned(),
            family: attempt.family,
            what: attempt.what.to_owned(),
            identities: attempt.identities(),
            stopped_by: attempt.stopped_by.to_owned(),
            undefended: attempt.undefended.map(str::to_owned),
            needs_lsm: attempt.needs_lsm.map(str::to_owned),
            needs_launch: attempt.needs_launch.map(str::to_owned),
        })
        .collect()
}

/// Those with the text in their name, or of the family of that name.
pub(super) fn matching(filter: Option<&str>) -> Vec<Attempt> {
    let wanted = |attempt: &Attempt| {
        filter.is_none_or(|text| attempt.name.contains(text) || attempt.family.as_str() == text)
    };
    all().into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_suite_is_as_large_as_it_is_said_to_be() {
        let all = all();
        assert!(all.len() >= 80, "{} attempts", all.len());
        let names: BTreeSet<_> = all.iter().map(|attempt| attempt.name).collect();
        assert_eq!(names.len(), all.len(), "a name is used twice");
        for attempt in &all {
            let plain =
                attempt.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(plain, "{}", attempt.name);
            assert!(!attempt.what.is_empty() && !attempt.stopped_by.is_empty(), "{}", attempt.name);
        }
        assert!(all.is_sorted_by_key(|attempt| attempt.family));
    }

    #[test]
    fn only_root_is_said_to_be_undefended() {
        for attempt in all() {
            assert!(attempt.undefended.is_none() || attempt.who == Who::Root, "{}", attempt.name);
        }
    }

    fn readme() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap()
    }

    /// What stands between backquotes.
    fn quoted(text: &str) -> Vec<&str> {
        text.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_published_table_has_every_family_and_no_other() {
        let readme = readme();
        let (_, table) = readme.split_once("\n| family |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let published: Vec<&str> = rows.map(|row| quoted(row)[0]).collect();
        let mut families: Vec<&str> = list(None).into_iter().map(|listed| listed.family.as_str()).collect();
        families.dedup();
        assert_eq!(published, families);
    }

    #[test]
    fn what_is_published_as_not_defended_is_what_the_suite_excuses() {
        let readme = readme();
        let (_, section) = readme.split_once("\n*Not defended*").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let published: BTreeSet<&str> = quoted(section).into_iter().collect();
        let excused = |attempt: &Attempt| {
            // The family as a whole.
            if attempt.family == Family::Families {
                assert!(attempt.needs_launch.is_some(), "{}", attempt.name);
                return Some("families");
            }
            let any = attempt.undefended.or(attempt.needs_lsm).or(attempt.needs_launch);
            any.map(|_| attempt.name)
        };
        let excused: BTreeSet<&str> = all().iter().filter_map(excused).chain(["--bare"]).collect();
        assert_eq!(published, excused);
    }

    #[test]
    fn metadata_is_spelled_in_ten_ways_at_least() {
        assert!(matching(Some("metadata")).len() >= 10);
    }

    #[test]
    fn filters_by_name_and_family() {
        assert!(matching(Some("tcp")).iter().any(|a| a.family == Family::Tcp));
        assert_eq!(matching(Some("no such attempt")).len(), 0);
        assert_eq!(matching(None).len(), all().len());
    }
}
