//! `agentctl doctor trust`: which runtimes of this host trust the gate.
//!
//! Each is started in the environment that this process has, and makes a real request to the gate's own
//! name: past the gate's DNS server, through the kernel's redirection, to a leaf that the gate's authority
//! has signed. The gate answers itself, with a refusal, and any answer at all means that the handshake was
//! accepted. Nothing leaves the host.

mod native;
mod probes;
mod run;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use self::{
    probes::{PROBES, Probe, Reading},
    run::Outcome,
};
use super::{Check, Report, State};
use crate::{launch::trust::Files, model::OWN_NAME};

/// Name of the check that comes first: whether there is a gate to be trusted.
const GATE: &str = "gate";
/// Name of the check that needs no program: this one is its own runtime.
const RUST: &str = "rust";

/// Names of what can be tried.
pub fn names() -> impl Iterator<Item = &'static str> {
    [RUST].into_iter().chain(PROBES.iter().map(|probe| probe.name))
}

/// Tries each runtime that is there, or of them those of `only`, for trust in the gate whose bundle is
/// `bundle`.
#[must_use]
pub fn examine(bundle: &Path, only: &[String]) -> Report {
    let files = Files::beside(bundle);
    let gate = gate(&files);
    let reached = gate.state == State::Ok;
    let mut checks = vec![gate];
    if reached {
        checks.extend(runtimes(&files, only));
    }
    Report { ok: checks.iter().all(|check| check.state != State::Fail), checks }
}

/// Whether the gate is what answers at its name.
fn gate(files: &Files) -> Check {
    match native::ask(&native::Trusting::Only(&files.added)) {
        Ok(()) => Check::ok(GATE, format!("answers at {OWN_NAME}")),
        Err(error) => Check::fail(GATE, error.to_string()).advise(
            "this process is not under guard, or the gate does not answer: `agentctl doctor trust` without \
             --here goes under guard first, `agentctl status` says how the gate is",
        ),
    }
}

fn runtimes(files: &Files, only: &[String]) -> Vec<Check> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut checks = Vec::new();
    if wanted(RUST) {
        checks.push(match native::ask(&native::Trusting::AsConfigured) {
            Ok(()) => Check::ok(RUST, "trusts the gate (rustls with the system's roots)"),
            Err(error) => Check::fail(RUST, error.to_string())
                .advise(format!("export SSL_CERT_FILE={}", files.bundle.display())),
        });
    }
    let found = PROBES.iter().filter(|probe| wanted(probe.name)).filter_map(|probe| {
        let program = probe.programs.iter().find_map(|program| run::find(program))?;
        Some((probe, program))
    });
    let found: Vec<_> = found.collect();
    // As many at a time as there are processors: a client that is kept from its first bytes for a second is
    // taken for one that waits for the server to speak, and refused.
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(found.len());
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut done = Vec::new();
        while let Some((probe, program)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((probe.name, judged(probe, run::run(probe, program), files)));
        }
        done
    };
    let done = thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        running.into_iter().flat_map(|lane| lane.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    for (probe, _) in &found {
        match done.iter().find(|(name, _)| *name == probe.name) {
            Some((_, check)) => checks.extend(check.clone()),
            None => checks.push(Check::fail(probe.name, "could not be tried: this program failed")),
        }
    }
    checks
}

/// What there is to say; nothing of a library that is not installed.
fn judged(probe: &Probe, outcome: Outcome, files: &Files) -> Option<Check> {
    let why = match outcome {
        Outcome::Absent => return None,
        Outcome::Ended { code, stdout, stderr, program } => {
            let said =
                |texts: &[&str]| texts.iter().any(|text| stderr.contains(text) || stdout.contains(text));
            let answered = match probe.reading {
                Reading::Prints => stdout.lines().any(|line| line.trim() == probes::ANSWERED),
                Reading::Code(codes, texts) => code.is_some_and(|code| codes.contains(&code)) || said(texts),
            };
            if answered {
                return Some(Check::ok(probe.name, format!("trusts the gate ({})", program.display())));
            }
            let line = [&stderr, &stdout].into_iter().find_map(|text| telling_line(text));
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            format!("{}: {}", program.display(), line.unwrap_or(code))
        }
        Outcome::TooLong => format!("no answer within {} s", run::DEADLINE.as_secs()),
        Outcome::Failed(error) => error,
    };
    let advice = [("{bundle}", &files.bundle), ("{added}", &files.added), ("{java}", &files.java)]
        .into_iter()
        .fold(probe.advice.to_owned(), |text, (name, path)| text.replace(name, &path.display().to_string()));
    Some(Check::fail(probe.name, why).advise(advice))
}

/// The line that most likely says why, cut: the last one about certificates, else the last one with
/// something to read in it.
fn telling_line(text: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let lines = || text.lines().rev();
    let about = lines().find(|line| line.to_ascii_lowercase().contains("certificate"));
    let line = about.or_else(|| lines().find(|line| line.contains(char::is_alphanumeric)))?;
    Some(line.trim().chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: Outcome) -> Option<Check> {
        let probe = PROBES.iter().find(|probe| probe.name == name).unwrap();
        judged(probe, outcome, &Files::beside(Path::new("/run/agentgate/ca-bundle.pem")))
    }

    fn ended(code: i32, stdout: &str, stderr: &str) -> Outcome {
        Outcome::Ended {
            code: Some(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
            program: "/usr/bin/x".into(),
        }
    }

    #[test]
    fn an_answer_is_trust_and_anything_else_is_not() {
        for (name, outcome, trusts) in [
            ("python", ended(0, "answered\n", "a warning"), true),
            ("python", ended(0, "", ""), false),
            ("python", ended(1, "", "Traceback\nssl.SSLCertVerificationError: no\n"), false),
            ("wget", ended(8, "", "ERROR 403: Forbidden."), true),
            ("wget", ended(5, "", ""), false),
            ("git", ended(128, "", "fatal: The requested URL returned error: 403"), true),
            ("git", ended(128, "", "fatal: server certificate verification failed"), false),
            ("java", ended(1, "keytool error: Server returned HTTP response code: 403 for URL", ""), true),
            ("java", ended(1, "keytool error: PKIX path building failed", ""), false),
            ("node", Outcome::TooLong, false),
        ] {
            let check = check(name, outcome).unwrap();
            assert_eq!(check.state == State::Ok, trusts, "{check:?}");
            // How to mend it, with the files' own names.
            assert_eq!(check.advice.contains("/run/agentgate/"), !trusts, "{check:?}");
        }
        assert_eq!(check("requests", Outcome::Absent), None);
        let failed = check("python", ended(1, "", "Traceback\nssl.SSLError: no\n}\n")).unwrap();
        assert_eq!(failed.found, "/usr/bin/x: ssl.SSLError: no");
        let curl = "curl: (60) SSL certificate problem: unknown\nMore details here:\nsee the web page.\n";
        let failed = check("curl", ended(60, "", curl)).unwrap();
        assert_eq!(failed.found, "/usr/bin/x: curl: (60) SSL certificate problem: unknown");
    }

    #[test]
    fn every_probe_has_a_name_of_its_own_and_advice() {
        let all: Vec<&str> = names().collect();
        for (at, name) in all.iter().enumerate() {
            assert!(!all[..at].contains(name) && *name != GATE, "{name}");
        }
        assert!(PROBES.iter().all(|probe| probe.advice.contains('{') && !probe.programs.is_empty()));
    }
}
