//! `cargo xtask test`: every check there is, in one order, with a table at the end.

use std::{
    fmt,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{
    clients,
    lab::{Programs, kills},
    privilege, setup,
    setup::Need,
    tidy, vm,
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Formatting
    Fmt,
    /// Lints, with warnings denied
    Clippy,
    /// Unit and in-process tests, and the policy cases
    Unit,
    /// Headers, sizes, the import table
    Tidy,
    /// Licences, bans and sources of dependencies; advisories where their database can be fetched
    Deny,
    /// Tests of single parts that need root
    Root,
    /// The dashboard in headless Chromium
    Browser,
    /// Scenarios on real eBPF
    Lab,
    /// The daemon killed with -9 under load, and what origins saw laid beside the log
    Kills,
    /// `agentctl selftest`: every known way round the gate, on this kernel
    Selftest,
    /// Real clients, with the gate and without: what they print and what origins receive is the same; two
    /// gigabytes are installed for it
    Clients,
    /// The packaged product under systemd on Debian's kernels, in qemu; only where it is named, since it
    /// takes long
    Vm,
    /// All of them but `vm`
    All,
}

const ORDER: [Step; 12] = [
    Step::Fmt,
    Step::Clippy,
    Step::Unit,
    Step::Tidy,
    Step::Deny,
    Step::Root,
    Step::Browser,
    Step::Lab,
    Step::Kills,
    Step::Selftest,
    Step::Clients,
    Step::Vm,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::Tidy => "tidy",
            Self::Deny => "deny",
            Self::Root => "root",
            Self::Browser => "browser",
            Self::Lab => "lab",
            Self::Kills => "kills",
            Self::Selftest => "selftest",
            Self::Clients => "clients",
            Self::Vm => "vm",
            Self::All => "all",
        };
        f.pad(name)
    }
}

/// What the steps are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'o> {
    pub(crate) filter: Option<&'o str>,
    pub(crate) clients: &'o clients::Options,
    pub(crate) kills: &'o kills::Options,
}

impl Step {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt | Self::Tidy => &[],
            Self::Clippy | Self::Unit => &[Need::Build],
            Self::Deny => &[Need::Deny],
            Self::Root | Self::Lab | Self::Kills | Self::Selftest => &[Need::Build, Need::Lab],
            Self::Browser => &[Need::Build, Need::Browser],
            Self::Clients => &[Need::Build, Need::Lab, Need::Clients],
            Self::Vm => &[Need::Build, Need::Vm],
            Self::All => &[Need::Build, Need::Lab, Need::Deny, Need::Browser, Need::Clients],
        }
    }

    /// What of it could not be run and was let go, or nothing.
    fn run(self, options: Options<'_>) -> anyhow::Result<Option<String>> {
        let Options { filter, clients, kills } = options;
        let run = match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"]),
            Self::Clippy => cargo(&["clippy", "--all-targets", "--", "-D", "warnings"]),
            Self::Unit => cargo(&["test"]),
            Self::Tidy => tidy::check(),
            Self::Deny => deny(),
            Self::Root => root_tests(),
            Self::Browser => {
                cargo(&["test", "--package", "agentgate-daemon", "--test", "browser", "--", "--ignored"])
            }
            Self::Lab => lab(filter),
            Self::Kills => killed(kills),
            Self::Selftest => selftest(filter),
            Self::Clients => return clients::step(filter, clients),
            Self::Vm => vm::run(filter),
            Self::All => Ok(()),
        };
        run.map(|()| None)
    }
}

/// Runs the steps; all of them but `vm` where none is named. One that fails does not keep the others from
/// running, and what of one was not run is named at the end.
///
/// # Errors
/// When set-up fails.
pub(crate) fn run(steps: &[Step], options: Options<'_>) -> anyhow::Result<ExitCode> {
    let Options { filter, clients, .. } = options;
    if clients.list {
        return Ok(clients::list(filter));
    }
    if steps == [Step::Clients] {
        return Ok(clients::alone(filter, clients));
    }
    let everything = steps.is_empty() || steps.contains(&Step::All);
    // A filter may mean other steps alone.
    let meant = |step: &Step| *step != Step::Vm && (*step != Step::Clients || clients::any(filter));
    let chosen = ORDER.into_iter().filter(|step| steps.contains(step) || everything && meant(step));
    let chosen: Vec<Step> = chosen.collect();
    let mut needs: Vec<Need> = Vec::new();
    for need in chosen.iter().flat_map(|step| step.needs()) {
        if !needs.contains(need) {
            needs.push(*need);
        }
    }
    if clients.allow_missing {
        needs.retain(|need| *need != Need::Clients);
        if chosen.contains(&Step::Clients) {
            clients::prepare();
        }
    }
    setup::ensure(&needs)?;
    let mut results: Vec<(Step, anyhow::Result<Option<String>>, Duration)> = Vec::new();
    for step in chosen {
        println!("\n==> {step}");
        let began = Instant::now();
        let result = step.run(options);
        if let Err(error) = &result {
            println!("{error:#}");
        }
        results.push((step, result, began.elapsed()));
    }
    println!("\nstep      result  time");
    let (mut failed, mut partly) = (0, 0);
    for (step, result, took) in &results {
        let (word, left_out) = match result {
            Ok(None) => ("ok", String::new()),
            Ok(Some(left_out)) => ("PARTLY", format!("  NOT RUN: {left_out}")),
            Err(_) => ("FAILED", String::new()),
        };
        failed += usize::from(word == "FAILED");
        partly += usize::from(word == "PARTLY");
        println!("{step:9} {word:7} {:.1} s{left_out}", took.as_secs_f64());
    }
    println!("{} passed, {partly} in part, {failed} failed", results.len() - failed - partly);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds `agentgated` and `agentctl` beside this program.
pub(crate) fn build_programs() -> anyhow::Result<()> {
    cargo(&["build", "--package", "agentgate-daemon", "--bins"])
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    status(Command::new("cargo").args(arguments))
}

fn status(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let status = command.status().with_context(|| format!("start {program}"))?;
    anyhow::ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

fn deny() -> anyhow::Result<()> {
    cargo(&["deny", "check", "licenses", "bans", "sources"])?;
    let fetched = Command::new("cargo").args(["deny", "fetch", "db"]).output().context("start cargo deny")?;
    if !fetched.status.success() {
        println!("advisories: not checked, their database cannot be fetched from here");
        return Ok(());
    }
    cargo(&["deny", "check", "--disable-fetch", "advisories"])
}

/// The ignored tests: each says itself why it needs root. One at a time, since they share cgroups'
/// parent and ports.
fn root_tests() -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    let mut arguments = vec!["test", "--package", "agentgate-daemon", "--lib"];
    for test in
        ["disk", "host", "kernel", "foreign", "namespaces", "privileges", "recorded", "run", "selftest"]
    {
        arguments.extend(["--test", test]);
    }
    command.args(arguments);
    if !privilege::is_root() {
        command.args(["--config", "target.'cfg(all())'.runner=['sudo', '--']"]);
    }
    // The ignored that are no tests: others start them, to kill them.
    let skip = ["--skip", "audit::tests::kill::"];
    status(command.args(["--", "--ignored", "--test-threads=1"]).args(skip))
}

fn lab(filter: Option<&str>) -> anyhow::Result<()> {
    build_programs()?;
    let mut arguments = vec!["lab", "suite"];
    arguments.extend(filter);
    let suite = status(&mut privilege::this_as_root(&arguments)?);
    // Also after a failure: what a failing lab leaves behind matters as much.
    status(&mut privilege::this_as_root(&["lab", "hygiene", "--daemon"])?).and(suite)
}

fn killed(options: &kills::Options) -> anyhow::Result<()> {
    build_programs()?;
    let options = options.arguments();
    let arguments: Vec<&str> =
        ["lab", "kills"].into_iter().chain(options.iter().map(String::as_str)).collect();
    status(&mut privilege::this_as_root(&arguments)?)
}

/// The programs that were built here, on this machine's kernel, as a user would on his.
fn selftest(filter: Option<&str>) -> anyhow::Result<()> {
    build_programs()?;
    let agentctl = Programs::beside_this()?.agentctl;
    let mut command = if privilege::is_root() {
        Command::new(agentctl)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--").arg(agentctl);
        sudo
    };
    status(command.arg("selftest").args(filter))
}
