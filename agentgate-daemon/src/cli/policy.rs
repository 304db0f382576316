//! `agentctl policy`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Failure, Session, output};
use crate::{
    config::Paths,
    control::wire::{Payload, Request},
    policy::{Policy, PolicySummary, Text, Texts},
    reload::{PolicyHandle, PolicyPaths},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compile the policy without the daemon and say what is wrong, with file, line and column
    Check {
        /// A policy document, taken alone; without it everything the daemon would read
        file: Option<PathBuf>,
    },
    /// Have the daemon read its policy again; what does not compile is not installed
    Reload,
}

pub(super) fn run(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check { file } => check(session, file.as_deref()),
        Command::Reload => reload(session),
    }
}

fn reload(session: &mut Session) -> Result<(), Failure> {
    let Payload::Policy(status) = session.ask(Request::PolicyReload)? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        return session.output.json(&status);
    }
    session.output.line(&format!("in force: {}", words(&status.summary)))
}

fn check(session: &mut Session, file: Option<&Path>) -> Result<(), Failure> {
    let checked = match file {
        Some(file) => check_document(file),
        None => check_all(&session.root),
    };
    if session.output.json {
        session.output.json(&match &checked {
            Ok(summary) => serde_json::json!({ "ok": true, "summary": summary, "errors": [] }),
            Err(errors) => serde_json::json!({ "ok": false, "summary": null, "errors": errors }),
        })?;
        session.output.flush()?;
    }
    match checked {
        Ok(_) if session.output.json => Ok(()),
        Ok(summary) => session.output.line(&format!("good: {}", words(&summary))),
        Err(errors) => {
            if !session.output.json {
                errors.iter().for_each(|error| output::complain(error));
            }
            Err(Failure::Invalid(None))
        }
    }
}

/// One document without lists and mode file.
fn check_document(file: &Path) -> Result<PolicySummary, Vec<String>> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| vec![format!("{name}: {error}")])?;
    let texts = Texts { policy: Some(Text { file: &name, text: &text }), ..Texts::default() };
    match Policy::compile(&texts) {
        Ok(policy) => Ok(policy.summary()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

/// What the daemon would read, read as it reads it.
fn check_all(root: &Path) -> Result<PolicySummary, Vec<String>> {
    let Paths { policy, lists, mode, .. } = Paths::below(root);
    let status = PolicyHandle::load(PolicyPaths { policy, lists, mode }).status();
    if status.errors.is_empty() { Ok(status.summary) } else { Err(status.errors) }
}

fn words(summary: &PolicySummary) -> String {
    format!(
        "mode {}, allow {}, deny {}, passthrough {}; {}",
        summary.mode,
        summary.allow,
        summary.deny,
        summary.passthrough,
        summary.network()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_checked_alone_with_its_place_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.toml");
        fs::write(&file, "version = 1\nmode = \"audit\"\n").unwrap();
        assert_eq!(check_document(&file).unwrap().mode, crate::model::Mode::Audit);
        fs::write(&file, "version = 1\nmodes = \"audit\"\n").unwrap();
        let errors = check_document(&file).unwrap_err();
        assert!(errors[0].contains("policy.toml:2:1"), "{errors:?}");
        assert!(check_document(&dir.path().join("none.toml")).is_err());
    }

    #[test]
    fn the_whole_policy_is_checked_with_its_lists() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_all(dir.path()).is_err(), "no policy.toml is a fault");
        let paths = Paths::below(dir.path());
        fs::create_dir_all(&paths.lists).unwrap();
        fs::write(&paths.policy, "version = 1\n").unwrap();
        fs::write(paths.lists.join("allow.txt"), "api.example.com\n").unwrap();
        assert_eq!(check_all(dir.path()).unwrap().allow, 1);
        fs::write(paths.lists.join("deny.txt"), "not a host\n").unwrap();
        let errors = check_all(dir.path()).unwrap_err();
        assert!(errors[0].contains("deny.txt:1"), "{errors:?}");
    }
}
