//! Which paths are hidden: names and `--expose` worked out. No file system here.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::{
    config::hide::{self, Place},
    control::wire::Hidden,
};

/// Word for `--expose`: hide nothing.
const ALL: &str = "all";
/// Word for `--expose`: let abstract unix sockets be.
const ABSTRACT: &str = "abstract";

/// A path with `*` in its last part at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    pub(super) directory: PathBuf,
    pub(super) last: OsString,
    /// A directory that is made where it is missing.
    pub(super) made: bool,
}

impl Pattern {
    /// `None` for what is no absolute path below the root.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let (directory, last) = (path.parent()?, path.file_name()?);
        let made = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        path.is_absolute().then(|| Self { directory: directory.to_owned(), last: last.to_owned(), made })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.last)
    }

    pub(super) fn is_plain(&self) -> bool {
        !self.last.as_encoded_bytes().contains(&b'*')
    }

    /// Whether an entry of `directory` called `name` is meant.
    pub(super) fn takes(&self, name: &OsStr) -> bool {
        glob(self.last.as_encoded_bytes(), name.as_encoded_bytes())
    }
}

/// Whether `text` is `pattern` with each `*` as any text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((first, rest)) => text.first() == Some(first) && glob(rest, &text[1..]),
    }
}

/// For whom it is worked out.
#[derive(Clone, Copy, Debug)]
pub(super) struct User<'a> {
    pub(super) uid: u32,
    pub(super) home: Option<&'a Path>,
}

/// What is to be hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub(super) patterns: Vec<Pattern>,
    /// Variables to take away.
    pub(super) unset: Vec<&'static str>,
    /// Whether abstract sockets from outside are closed.
    pub(super) abstract_sockets: bool,
}

impl Wanted {
    /// Whether nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.patterns.is_empty() && !self.abstract_sockets
    }

    /// Whether the command gets a view of its own, by a mount namespace.
    #[must_use]
    pub fn makes_view(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether abstract unix sockets from outside are to be closed.
    #[must_use]
    pub fn abstract_sockets(&self) -> bool {
        self.abstract_sockets
    }

    /// Variables to take away from the command.
    #[must_use]
    pub fn unset(&self) -> &[&'static str] {
        &self.unset
    }
}

/// `--expose` of what is not hidden, or an entry that is none: the user thinks of something else than is
/// the case.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExposeError {
    /// Neither name nor path of anything hidden.
    #[error("--expose {0}: nothing of that name or path is hidden; hidden is: {1}")]
    NotHidden(String, String),
    /// A part of what is hidden as a whole.
    #[error("--expose {0}: it is hidden as a part of {1}; expose that, or name what is in it in [run] hide")]
    PartOf(String, String),
    /// An entry that this version does not know.
    #[error("agentgated asks to hide {0:?}, which this agentctl does not know; are both of one version?")]
    Unknown(String),
}

/// What of `hidden` is hidden from `user`, where `expose` is asked for. `variable` gives those of the
/// environment.
///
/// # Errors
/// [`ExposeError`].
pub(super) fn wanted(
    hidden: &Hidden,
    expose: &[String],
    user: User<'_>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Wanted, ExposeError> {
    if expose.iter().any(|word| word == ALL) {
        return Ok(Wanted::default());
    }
    if let Some(strange) = hidden.places.iter().find(|entry| hide::fault(entry).is_some()) {
        return Err(ExposeError::Unknown(strange.clone()));
    }
    let mut wanted = Wanted { abstract_sockets: true, ..Wanted::default() };
    let mut left: Vec<&str> = Vec::new();
    for word in expose {
        if word == ABSTRACT {
            wanted.abstract_sockets = false;
        } else if !hidden.places.iter().any(|entry| entry == word && hide::named(entry).is_some()) {
            left.push(word);
        }
    }
    for entry in hidden.places.iter().filter(|entry| !expose.contains(entry)) {
        match hide::named(entry) {
            Some(place) => add_place(&mut wanted, place, user, &variable),
            None => wanted.patterns.extend(expand(entry, user)),
        }
    }
    let moved = moved(&wanted.patterns, user, &variable);
    wanted.patterns.extend(moved);
    wanted.patterns.extend(hidden.sockets.iter().filter_map(|path| Pattern::new(path)));
    for word in left {
        let path = Path::new(word);
        let before = wanted.patterns.len();
        wanted.patterns.retain(|pattern| !pattern.path().starts_with(path));
        if wanted.patterns.len() < before {
            continue;
        }
        let whole = wanted.patterns.iter().find(|pattern| path.starts_with(pattern.path()));
        return Err(match whole {
            Some(whole) => ExposeError::PartOf(word.to_owned(), whole.path().display().to_string()),
            None => ExposeError::NotHidden(word.to_owned(), hidden.places.join(", ")),
        });
    }
    wanted.patterns.sort();
    wanted.patterns.dedup();
    Ok(wanted)
}

fn add_place(
    wanted: &mut Wanted,
    place: &Place,
    user: User<'_>,
    variable: &impl Fn(&str) -> Option<OsString>,
) {
    wanted.patterns.extend(place.paths.iter().filter_map(|path| expand(path, user)));
    for value in place.variables.iter().filter_map(|name| variable(name)) {
        wanted.patterns.extend(socket_in(&value).as_deref().and_then(Pattern::new));
    }
    wanted.unset.extend(place.unset);
}

/// The patterns below `/run/user/UID` and `/tmp`, where the user has the like elsewhere.
fn moved(patterns: &[Pattern], user: User<'_>, variable: &impl Fn(&str) -> Option<OsString>) -> Vec<Pattern> {
    let runtime = PathBuf::from(format!("/run/user/{}", user.uid));
    let mut moved = Vec::new();
    for (name, usual) in [("XDG_RUNTIME_DIR", runtime.as_path()), ("TMPDIR", Path::new("/tmp"))] {
        let Some(actual) = variable(name).map(PathBuf::from).filter(|path| path.is_absolute()) else {
            continue;
        };
        moved.extend(patterns.iter().filter_map(|pattern| {
            let rest = pattern.directory.strip_prefix(usual).ok()?;
            // No slash at the end, by which the same path would be another.
            let directory = actual.components().chain(rest.components()).collect();
            Some(Pattern { directory, last: pattern.last.clone(), made: false })
        }));
    }
    moved.retain(|pattern| {
        !patterns.iter().any(|known| known.directory == pattern.directory && known.last == pattern.last)
    });
    moved
}

/// `{uid}` and `{home}` filled in; `None` where the user has no home to fill in.
fn expand(entry: &str, user: User<'_>) -> Option<Pattern> {
    let entry = entry.replace("{uid}", &user.uid.to_string());
    match entry.strip_prefix("{home}/") {
        None => Pattern::new(Path::new(&entry)),
        Some(rest) => Pattern::new(&user.home?.join(rest)),
    }
}

/// The path in a variable's value: plain, `unix:///run/x.sock`, `unix:path=/run/bus,guid=…` (D-Bus),
/// `/tmp/tmux-0/default,1,0`, or `/run/x:1:1`.
fn socket_in(value: &OsStr) -> Option<PathBuf> {
    let text = value.to_str()?;
    let text =
        ["unix:path=", "unix://", "unix:"].iter().find_map(|head| text.strip_prefix(head)).unwrap_or(text);
    let path = text.split([',', ';', ':', '*']).next()?;
    path.starts_with('/').then(|| PathBuf::from(path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(places: &[&str]) -> Hidden {
        Hidden {
            places: places.iter().map(ToString::to_string).collect(),
            sockets: vec!["/run/agentgate/control.sock".into()],
        }
    }

    fn run(places: &[&str], expose: &[&str], environment: &[(&str, &str)]) -> Result<Wanted, ExposeError> {
        let expose: Vec<String> = expose.iter().map(ToString::to_string).collect();
        let user = User { uid: 1000, home: Some(Path::new("/home/me")) };
        wanted(&hidden(places), &expose, user, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn paths(wanted: &Wanted) -> Vec<String> {
        wanted.patterns.iter().map(|pattern| pattern.path().display().to_string()).collect()
    }

    #[test]
    fn what_a_user_has_elsewhere_is_hidden_there_too() {
        let elsewhere = [("XDG_RUNTIME_DIR", "/home/me/run/"), ("TMPDIR", "/tmp/user/1000")];
        let found = paths(&run(&["podman", "ssh-agent"], &[], &elsewhere).unwrap());
        for path in ["/home/me/run/podman", "/run/user/1000/podman", "/tmp/ssh-*", "/tmp/user/1000/ssh-*"] {
            assert!(found.iter().any(|found| found == path), "{path}: {found:?}");
        }
        let usual = [("XDG_RUNTIME_DIR", "/run/user/1000"), ("TMPDIR", "/tmp/")];
        assert_eq!(run(&["podman", "tmux"], &[], &usual), run(&["podman", "tmux"], &[], &[]));
        assert_eq!(run(&["podman"], &[], &[("XDG_RUNTIME_DIR", "run")]), run(&["podman"], &[], &[]));
    }

    #[test]
    fn names_and_paths_become_patterns_of_the_user() {
        let wanted = run(&["gpg-agent", "/srv/x-{uid}/", "{home}/.x/*.sock"], &[], &[]).unwrap();
        assert_eq!(
            paths(&wanted),
            [
                "/home/me/.gnupg/S.*",
                "/home/me/.x/*.sock",
                "/run/pcscd",
                "/run/agentgate/control.sock",
                "/run/user/1000/gnupg",
                "/srv/x-1000"
            ]
        );
        let made: Vec<bool> = wanted.patterns.iter().map(|pattern| pattern.made).collect();
        assert_eq!(made, [false, false, false, false, false, true]);
        assert_eq!((wanted.unset(), wanted.abstract_sockets), (&["GPG_AGENT_INFO"][..], true));
        assert_eq!(run(&["teleporter"], &[], &[]), Err(ExposeError::Unknown("teleporter".into())));
    }

    #[test]
    fn what_is_exposed_is_not_hidden_and_keeps_its_variables() {
        let environment = [("SSH_AUTH_SOCK", "/tmp/a-1/agent"), ("DOCKER_HOST", "unix:///home/me/d.sock")];
        let whole = run(&["docker", "ssh-agent"], &[], &environment).unwrap();
        let all = paths(&whole);
        assert!(
            ["/tmp/a-1/agent", "/home/me/d.sock", "/run/docker.sock"]
                .iter()
                .all(|p| all.contains(&p.to_string()))
        );
        assert_eq!(whole.unset(), ["SSH_AUTH_SOCK", "SSH_AGENT_PID"]);

        let exposed =
            run(&["docker", "ssh-agent"], &["ssh-agent", "/run/docker.sock", "abstract"], &environment)
                .unwrap();
        let left = paths(&exposed);
        assert!(!left.contains(&"/tmp/a-1/agent".into()) && !left.contains(&"/run/docker.sock".into()));
        assert!(left.contains(&"/run/docker".into()) && left.contains(&"/home/me/d.sock".into()));
        assert!(exposed.unset().is_empty() && !exposed.abstract_sockets);
        assert!(run(&["docker"], &["all"], &[]).unwrap().is_nothing());
    }

    #[test]
    fn exposing_what_is_not_hidden_is_said() {
        for word in ["ssh-agent", "/run/x", "dockers"] {
            assert!(matches!(run(&["docker"], &[word], &[]), Err(ExposeError::NotHidden(..))), "{word}");
        }
        assert!(matches!(run(&["docker"], &["/run/docker/x.sock"], &[]), Err(ExposeError::PartOf(..))));
    }

    #[test]
    fn sockets_are_found_in_variables() {
        for (value, expect) in [
            ("/run/a", Some("/run/a")),
            ("unix:///run/a/", Some("/run/a")),
            ("unix:path=/run/bus,guid=1;unix:path=/x", Some("/run/bus")),
            ("/tmp/tmux-1/default,1,0", Some("/tmp/tmux-1/default")),
            ("/run/gpg:1:1", Some("/run/gpg")),
            ("unix:abstract=/tmp/x", None),
            ("tcp://127.0.0.1:1", None),
            ("", None),
        ] {
            assert_eq!(socket_in(OsStr::new(value)).as_deref(), expect.map(Path::new), "{value}");
        }
    }

    #[test]
    fn stars_are_any_text() {
        for (pattern, name, expect) in [
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("S.*", "S.gpg", true),
            ("a", "a", true),
            ("*.x", "y.x", true),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expect, "{pattern} {name}");
        }
    }
}
