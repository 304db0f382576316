//! `agentctl run`: the caller's own process goes under guard and then becomes the command.
//!
//! Because it is the same process, terminal, user, working directory and exit code stay as they are.
//! Nothing is executed unless this process has seen itself inside the guarded cgroup.

use std::{
    ffi::OsString,
    fs, io,
    os::{fd::RawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
};

use super::{
    bundle::BundleError,
    descriptors::{self, DescriptorError},
    environment,
    hide::{self, HideError, Shown, Wanted},
    landlock, seccomp,
    trust::{self, Files, Own},
};
use crate::control::{
    client::{Client, ClientError},
    peer::{is_inside, unified_path},
    wire::{Enrolled, Payload, Request},
};

/// What to run, and how.
#[derive(Debug, Default)]
pub struct Launch {
    /// Program and arguments; never empty.
    pub command: Vec<OsString>,
    /// Keep `HTTPS_PROXY` and the like.
    pub keep_proxies: bool,
    /// Let set-uid programs such as sudo(8) work. Without root that costs the seccomp filter, and nothing
    /// can be hidden.
    pub allow_new_privileges: bool,
    /// Names and paths that are not hidden from the command, or `all`.
    pub expose: Vec<String>,
    /// Whether the system's own roots are, for the command, those with the gate's among them; `None`: as
    /// the daemon's settings have it for ordinary users, and not for root, who looks after them.
    pub system_bundle: Option<bool>,
    /// Descriptors that it inherits besides the first three.
    pub keep: Vec<RawFd>,
}

/// What a person is told before the command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What was changed; may be left unsaid.
    Information(String),
    /// A protection that is missing.
    Warning(String),
    /// A protection that is missing because it was asked to be; always said.
    Lost(String),
}

/// Why the command does not run. [`LaunchError::exit_code`] says it to the shell.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No command was given.
    #[error("no command given")]
    NoCommand,
    /// A descriptor that the command must not have.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The daemon did not put this process under guard.
    #[error(transparent)]
    Enrol(#[from] ClientError),
    /// The daemon's answer is not one to enrolment.
    #[error("agentgated answered with something else than an enrolment")]
    NotEnrolled,
    /// The daemon said yes, but this process is elsewhere.
    #[error("not under guard: this process is in cgroup {found}, not in {expected}")]
    Unguarded {
        /// Where it should be.
        expected: String,
        /// Where it is.
        found: String,
    },
    /// What the command is to trust.
    #[error(transparent)]
    Trust(#[from] BundleError),
    /// What acts for the command outside could not be hidden from it.
    #[error(transparent)]
    Hide(#[from] HideError),
    /// Something of the host's.
    #[error("{what}: {source}")]
    Host {
        /// What was being done.
        what: String,
        #[source]
        source: io::Error,
    },
    /// There is no such command.
    #[error("{}: command not found", .0.to_string_lossy())]
    NotFound(OsString),
    /// The command cannot be executed.
    #[error("{}: {source}", program.to_string_lossy())]
    NotExecutable {
        /// The command.
        program: OsString,
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    /// As shells and `env(1)` have it: 127 not found, 126 not executable, 125 for everything of ours.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            Self::NoCommand
            | Self::Descriptor(_)
            | Self::Enrol(_)
            | Self::NotEnrolled
            | Self::Unguarded { .. }
            | Self::Trust(_)
            | Self::Hide(_)
            | Self::Host { .. } => 125,
        }
    }
}

/// Puts this process under guard and becomes the command: returns only if that failed. `notes` is given
/// what a person should know first.
pub fn become_command(socket: &Path, launch: &Launch, notes: impl FnOnce(&[Note])) -> LaunchError {
    match prepare(socket, launch, notes) {
        Ok(mut command) => exec(&mut command),
        Err(error) => error,
    }
}

fn prepare(socket: &Path, launch: &Launch, notes: impl FnOnce(&[Note])) -> Result<Command, LaunchError> {
    let (program, arguments) = launch.command.split_first().ok_or(LaunchError::NoCommand)?;
    descriptors::check(&launch.keep)?;
    let Payload::Enrolled(enrolled) = Client::connect(socket)?.ask(Request::Enrol)? else {
        return Err(LaunchError::NotEnrolled);
    };
    let text = fs::read_to_string("/proc/self/cgroup").map_err(host("/proc/self/cgroup"))?;
    check_guarded(&text, &enrolled)?;
    let current: Vec<_> = std::env::vars_os().collect();
    let files = Files::beside(&enrolled.bundle);
    // What the user's variables name may be hidden afterwards.
    let own = Own::collect(&current, &files)?;
    let (wanted, system) = hide(&enrolled, launch, &current, &files, &own)?;
    // As the command sees them.
    for file in [&files.bundle, &files.added, &files.java] {
        readable(file)?;
    }
    let pairs = current.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let roots = environment::Roots {
        bundle: &files.bundle,
        added: &files.added,
        java: (!system).then_some(files.java.as_path()),
    };
    let changes = environment::changes(pairs, roots, launch.keep_proxies, wanted.unset());
    let mut told: Vec<Note> = changes.notes().into_iter().map(Note::Information).collect();
    told.extend(of_own(&own, wanted.makes_view()));
    if changes.java_kept {
        told.push(Note::Warning(format!(
            "JAVA_TOOL_OPTIONS names a trust store of yours, which is kept; for Java to trust the gate: keytool \
             -importcert -noprompt -alias agentgate -file {} -keystore THAT_STORE",
            files.added.display()
        )));
    }
    if rustix::process::geteuid().is_root() {
        told.push(Note::Warning(
            "the command runs as root, which can leave the guarded cgroup and uncover what is hidden from \
             it; run agents as a user of their own"
                .to_owned(),
        ));
    }
    if wanted.is_nothing() {
        told.push(Note::Lost(EVERYTHING.to_owned()));
    }
    told.extend(close(launch.allow_new_privileges, &wanted)?);
    notes(&told);
    let mut command = Command::new(program);
    command.args(arguments).envs(&changes.set);
    for name in &changes.remove {
        command.env_remove(name);
    }
    descriptors::keep_only(&launch.keep).map_err(host("close_range"))?;
    Ok(command)
}

/// What is said where nothing is hidden.
const EVERYTHING: &str = "--expose all: the command sees the sockets of docker, systemd, D-Bus, agents and \
                          others, which act for it outside the gate";

/// What a person should know of certificates of their own.
fn of_own(own: &Own, view: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    let names = own.variables.join(", ");
    if own.bundle.is_some() && view {
        notes.push(Note::Information(format!("what {names} named is in the bundle that they name now")));
    } else if own.bundle.is_some() {
        notes.push(Note::Warning(format!(
            "{names} now name the gate's bundle instead of yours, without what is in yours: --expose all \
             leaves no place for both"
        )));
    }
    let unreadable = own.unreadable.iter();
    notes.extend(unreadable.map(|(name, why)| Note::Warning(format!("{name} is left out: {why}"))));
    notes
}

/// Hides what the daemon says from this process, and with it from the command, and shows it what it is to
/// trust; also whether the system's own roots are among that.
fn hide(
    enrolled: &Enrolled,
    launch: &Launch,
    environment: &[(OsString, OsString)],
    files: &Files,
    own: &Own,
) -> Result<(Wanted, bool), LaunchError> {
    let variable =
        |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let wanted = hide::wanted(&enrolled.hidden, &launch.expose, variable)?;
    if launch.system_bundle == Some(true) && !wanted.makes_view() {
        return Err(HideError::NoView.into());
    }
    if wanted.is_nothing() {
        return Ok((wanted, false));
    }
    if launch.allow_new_privileges && hide::needs_user_namespace().map_err(host("capget"))? {
        return Err(HideError::NoNewPrivileges.into());
    }
    let usual = || enrolled.system_bundle && !rustix::process::geteuid().is_root();
    let system = wanted.makes_view() && launch.system_bundle.unwrap_or_else(usual);
    let texts = [(&files.bundle, &own.bundle), (&files.added, &own.added)];
    let instead = texts.into_iter().filter_map(|(path, text)| Some((path.clone(), text.clone()?)));
    let shown = Shown {
        instead: instead.collect(),
        covers: if system { trust::covers(files, own.bundle.is_some(), variable) } else { Vec::new() },
    };
    hide::apply(&wanted, &enrolled.hidden.sockets, &shown)?;
    Ok((wanted, system))
}

/// Whether `text`, this process's `/proc/self/cgroup`, shows it where the daemon says it put it, and that
/// this is below the guarded cgroup.
fn check_guarded(text: &str, enrolled: &Enrolled) -> Result<(), LaunchError> {
    let found = unified_path(text).unwrap_or("(none)");
    let below =
        enrolled.cgroup != enrolled.guarded && is_inside(&enrolled.cgroup, Path::new(&enrolled.guarded));
    if below && is_inside(found, Path::new(&enrolled.cgroup)) {
        Ok(())
    } else {
        Err(LaunchError::Unguarded { expected: enrolled.cgroup.clone(), found: found.to_owned() })
    }
}

fn readable(file: &Path) -> Result<(), LaunchError> {
    fs::File::open(file).map_err(host(file.display().to_string())).map(drop)
}

/// Takes away the ways from the command to what is not under guard: programs that gain privileges by
/// being executed, abstract sockets, typing into the terminal, and sockets that no hook judges.
fn close(allow_new_privileges: bool, wanted: &Wanted) -> Result<Vec<Note>, LaunchError> {
    let mut notes = Vec::new();
    if !allow_new_privileges {
        // First: without it only root may install a filter or a domain (seccomp(2), landlock(7)).
        rustix::thread::set_no_new_privs(true).map_err(|e| host("prctl(PR_SET_NO_NEW_PRIVS)")(e.into()))?;
    }
    // Before the filter, so that the filter need not know of it.
    if wanted.abstract_sockets() && !landlock::scope_abstract_sockets().map_err(host("Landlock"))? {
        notes.push(Note::Warning(
            "abstract unix sockets stay open to the command: this kernel has no Landlock scopes (Linux 6.12 \
             has, where Landlock is on)"
                .to_owned(),
        ));
    }
    match seccomp::install() {
        Ok(()) if allow_new_privileges => notes.push(lost("")),
        Ok(()) => {}
        // EACCES: seccomp(2) without CAP_SYS_ADMIN, where new privileges are allowed.
        Err(error) if allow_new_privileges && error.raw_os_error() == Some(libc::EACCES) => notes.push(lost(
            ", and it can type into this terminal (TIOCSTI), which your shell then runs without guard",
        )),
        Err(error) => return Err(host("seccomp filter")(error)),
    }
    Ok(notes)
}

fn lost(also: &str) -> Note {
    Note::Lost(format!(
        "--allow-new-privileges: set-uid programs such as sudo give the command more than you have{also}"
    ))
}

fn exec(command: &mut Command) -> LaunchError {
    let source = command.exec();
    let program = command.get_program().to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        LaunchError::NotFound(program)
    } else {
        LaunchError::NotExecutable { program, source }
    }
}

fn host(what: impl Into<String>) -> impl FnOnce(io::Error) -> LaunchError {
    let what = what.into();
    move |source| LaunchError::Host { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::Hidden;

    fn enrolled(cgroup: &str) -> Enrolled {
        Enrolled {
            cgroup: cgroup.into(),
            guarded: "/agent.slice".into(),
            bundle: "/x".into(),
            hidden: Hidden::default(),
            system_bundle: true,
        }
    }

    #[test]
    fn only_the_cgroup_that_was_promised_counts_as_guarded() {
        let promised = "/agent.slice/run-1-0.scope";
        let rows = [
            ("0::/agent.slice/run-1-0.scope\n", promised, true),
            ("1:cpu:/\n0::/agent.slice/run-1-0.scope\n", promised, true),
            ("0::/agent.slice\n", promised, false),
            ("0::/agent.slice/run-2-0.scope\n", promised, false),
            ("0::/\n", promised, false),
            ("1:cpu:/agent.slice/run-1-0.scope\n", promised, false),
            ("", promised, false),
            // A daemon that names a place outside the guarded cgroup, or that cgroup itself.
            ("0::/user.slice/x\n", "/user.slice/x", false),
            ("0::/\n", "/", false),
            ("0::/agent.slice\n", "/agent.slice", false),
        ];
        for (text, cgroup, expect) in rows {
            assert_eq!(check_guarded(text, &enrolled(cgroup)).is_ok(), expect, "{text:?} {cgroup}");
        }
    }

    #[test]
    fn without_a_daemon_nothing_runs() {
        let launch = Launch { command: vec!["true".into()], ..Launch::default() };
        let error = become_command(Path::new("/nonexistent/control.sock"), &launch, |_| {});
        assert!(matches!(error, LaunchError::Enrol(ClientError::NotRunning { .. })), "{error}");
        assert_eq!(error.exit_code(), 125);
        let nothing = Launch::default();
        assert_eq!(become_command(Path::new("/x"), &nothing, |_| {}).exit_code(), 125);
    }
}
