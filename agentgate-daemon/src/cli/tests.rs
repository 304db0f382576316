//! The grammar of the command line, and the exit codes.

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use super::*;
use crate::{
    control::{
        client::ClientError,
        wire::{ErrorCode, ErrorReply},
    },
    launch::command::LaunchError,
};

#[test]
fn the_grammar_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn what_people_write_is_understood() {
    let rows = [
        "status",
        "status --json",
        "status --check",
        "--root /x --socket /y status",
        "run -- claude --resume",
        "run claude",
        "run --keep-proxy-env -q -- sh -c true",
        "run --allow-new-privileges -- sh",
        "logs -f --host *.example.com --verdict deny --session s@1 --since 2h --limit 5 --json",
        "logs --kind control --newest-first",
        "logs host:*.github.com verdict:deny since:2h",
        "logs --count status:5xx --host example",
        "logs --sort duration --limit 10 kind:exchange",
        "show 12 --json",
        "show 12 --body response",
        "show 12 --body request --raw",
        "policy check",
        "policy check /tmp/policy.toml",
        "policy reload",
        "mode",
        "mode audit",
        "mode default",
        "allow api.example.com",
        "deny *.example.com --remove",
        "passthrough example.com:443",
        "ca export",
        "dashboard",
        "audit reconcile --json",
        "audit reconcile --recount",
        "audit import --key audit.pub one.jsonl two.jsonl.zst",
        "audit import --damaged --store /tmp/audit.redb - --json",
        "detach --yes",
    ];
    for row in rows {
        let words = std::iter::once("agentctl").chain(row.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{row}");
    }
}

#[test]
fn what_means_nothing_is_a_usage_error() {
    let rows = [
        "",
        "run",
        "run --",
        "show",
        "show x",
        "show 1 --body both",
        "show 1 --body request --json",
        "show 1 --raw",
        "logs --limit 0",
        "logs -f --newest-first",
        "logs --verdict maybe",
        "logs -f --sort oldest --newest-first",
        "logs --count --follow",
        "logs --sort largest",
        "logs --since soon",
        "mode open",
        "allow",
        "allow a b",
        "policy",
        "ca",
        "nope",
    ];
    for row in rows {
        let words = std::iter::once("agentctl").chain(row.split_whitespace());
        let error = Cli::try_parse_from(words).expect_err(row);
        assert_eq!(error.exit_code(), 2, "{row}");
    }
}

#[test]
fn flags_after_the_command_are_the_commands() {
    let cli = Cli::try_parse_from(["agentctl", "run", "ls", "--json", "-q", "--", "--root"]).unwrap();
    assert!(!cli.json);
    assert_eq!(cli.root, PathBuf::from("/"));
    let Command::Run(args) = cli.command else { panic!("run") };
    assert!(format!("{args:?}").contains(r#"command: ["ls", "--json", "-q", "--", "--root"]"#), "{args:?}");
    let cli = Cli::try_parse_from(["agentctl", "run", "--", "-weird"]).unwrap();
    assert!(format!("{:?}", cli.command).contains(r#"["-weird"]"#));
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let io = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let refused = || ClientError::Refused(ErrorReply::new(ErrorCode::Guarded, "no"));
    let path = PathBuf::from("/x");
    let rows = [
        (Failure::Daemon(refused()), 1),
        (Failure::Unexpected, 1),
        (Failure::Daemon(ClientError::Refused(ErrorReply::new(ErrorCode::Invalid, "no host"))), 2),
        (
            Failure::Daemon(ClientError::Refused(ErrorReply::new(ErrorCode::PolicyInvalid, "policy.toml:1"))),
            2,
        ),
        (Failure::Unhealthy, 1),
        (Failure::Invalid(None), 2),
        (Failure::Daemon(ClientError::NotRunning { path: path.clone(), source: io() }), 3),
        (Failure::Daemon(ClientError::Permission { path: path.clone() }), 3),
        (Failure::Daemon(ClientError::Timeout { path }), 3),
        (Failure::Launch(LaunchError::Enrol(refused())), 125),
        (Failure::Launch(LaunchError::NotExecutable { program: OsString::from("x"), source: io() }), 126),
        (Failure::Launch(LaunchError::NotFound(OsString::from("x"))), 127),
        (Failure::ReaderGone, 0),
    ];
    for (failure, expect) in rows {
        assert_eq!(failure.exit_code(), expect, "{failure:?}");
    }
    assert!(Failure::ReaderGone.message().is_none());
}
