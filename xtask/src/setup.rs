//! `cargo xtask setup`: finds or installs what building and testing need.
//!
//! Says what it is about to do before it does it, does nothing twice, and where it may not or cannot
//! install something ends with one line that names what to install by hand. `--check` only looks.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::ebpf;

/// A purpose, and with it the parts that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the workspace with its eBPF object.
    Build,
    /// The lab: root, namespaces, and the clients that run in it.
    Lab,
    /// Checks of licences and sources.
    Deny,
    /// The dashboard in a real browser.
    Browser,
    /// Real clients out of the system's packages, PyPI and npm.
    Clients,
    /// Debian's kernels in a virtual machine.
    Vm,
}

impl Need {
    const ALL: [Self; 6] = [Self::Build, Self::Lab, Self::Deny, Self::Browser, Self::Clients, Self::Vm];

    const fn parts(self) -> &'static [Part] {
        match self {
            Self::Build => &[Part::EbpfCompiler, Part::BpfLinker],
            Self::Lab => &[
                Part::Root,
                Part::Ip,
                Part::Setpriv,
                Part::Curl,
                Part::Python,
                Part::Git,
                Part::Ssh,
                Part::Slirp,
            ],
            Self::Deny => &[Part::CargoDeny],
            Self::Browser => &[Part::Chromium, Part::Chromedriver],
            Self::Clients => &[Part::Wget, Part::Venv, Part::Npm],
            Self::Vm => &[Part::Qemu, Part::Mmdebstrap, Part::Cpio, Part::Depmod, Part::Strip, Part::Setpriv],
        }
    }
}

/// One thing that is there or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A compiler for the eBPF programs: a nightly with `rust-src`, or Debian's.
    EbpfCompiler,
    /// The linker that goes with it.
    BpfLinker,
    /// Checks of licences and sources.
    CargoDeny,
    /// Network namespaces.
    Ip,
    /// Agents of another user.
    Setpriv,
    /// An unmodified client.
    Curl,
    /// The agents of the lab.
    Python,
    /// What people's agents run, and what speaks another protocol.
    Git,
    /// The same.
    Ssh,
    /// The network of a sandbox without privileges.
    Slirp,
    /// An unmodified client that reads the system's bundle only.
    Wget,
    /// Python's environments, for the clients from PyPI.
    Venv,
    /// Node and its installer, for the clients from npm.
    Npm,
    /// A browser without a screen.
    Chromium,
    /// What steers it.
    Chromedriver,
    /// An emulated machine.
    Qemu,
    /// A file system for it.
    Mmdebstrap,
    /// The same as an archive.
    Cpio,
    /// The index of its kernel's modules.
    Depmod,
    /// Programs without their debug information.
    Strip,
    /// Root, or sudo to become root: the lab attaches real programs.
    Root,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::EbpfCompiler => "eBPF compiler",
            Self::BpfLinker => "bpf-linker",
            Self::CargoDeny => "cargo-deny",
            Self::Ip => "ip",
            Self::Setpriv => "setpriv",
            Self::Curl => "curl",
            Self::Python => "python3",
            Self::Git => "git",
            Self::Ssh => "ssh",
            Self::Slirp => "slirp4netns",
            Self::Wget => "wget",
            Self::Venv => "python3 venv",
            Self::Npm => "npm",
            Self::Chromium => "chromium",
            Self::Chromedriver => "chromedriver",
            Self::Qemu => "qemu",
            Self::Mmdebstrap => "mmdebstrap",
            Self::Cpio => "cpio",
            Self::Depmod => "depmod",
            Self::Strip => "strip",
            Self::Root => "root or sudo",
        }
    }

    /// Where it is, or `None`.
    fn found(self) -> Option<String> {
        match self {
            Self::EbpfCompiler => {
                ebpf::nightly().or_else(ebpf::debian).map(|toolchain| toolchain.to_string())
            }
            Self::BpfLinker => shown(ebpf::linker()),
            Self::CargoDeny => shown(ebpf::program("cargo-deny")),
            Self::Setpriv => shown(ebpf::program("setpriv")),
            Self::Ip => shown(ebpf::program("ip")),
            Self::Curl => shown(ebpf::program("curl")),
            Self::Python => shown(ebpf::program("python3")),
            Self::Git => shown(ebpf::program("git")),
            Self::Ssh => shown(ebpf::program("ssh")),
            Self::Slirp => shown(ebpf::program("slirp4netns")),
            Self::Wget => shown(ebpf::program("wget")),
            Self::Venv => succeeds("python3", &["-c", "import venv, ensurepip"])
                .then(|| "a module of python3".to_owned()),
            Self::Npm => shown(ebpf::program("node").and_then(|_| ebpf::program("npm"))),
            Self::Chromium => shown(ebpf::program("chromium")),
            Self::Chromedriver => shown(ebpf::program("chromedriver")),
            Self::Qemu => shown(ebpf::program(QEMU)),
            Self::Mmdebstrap => shown(ebpf::program("mmdebstrap")),
            Self::Cpio => shown(ebpf::program("cpio")),
            // Not on the path of ordinary users.
            Self::Depmod => shown(Some(PathBuf::from("/sbin/depmod")).filter(|path| path.exists())),
            Self::Strip => shown(ebpf::program("strip")),
            Self::Root if is_root() => Some("this user is root".to_owned()),
            Self::Root => shown(ebpf::program("sudo")),
        }
    }

    /// What to run so that it is there, best first.
    fn remedies(self) -> Vec<Remedy> {
        let crates = |name, version| Remedy::Cargo { name, version };
        match self {
            Self::EbpfCompiler => {
                vec![Remedy::Apt(&["rustc-web", "libstd-rust-web-dev-bpf"]), Remedy::Nightly]
            }
            Self::BpfLinker => vec![crates("bpf-linker", Some(ebpf::BPF_LINKER))],
            Self::CargoDeny => vec![crates("cargo-deny", None)],
            Self::Setpriv => vec![Remedy::Apt(&["util-linux"])],
            Self::Ip => vec![Remedy::Apt(&["iproute2"])],
            Self::Curl => vec![Remedy::Apt(&["curl"])],
            Self::Python => vec![Remedy::Apt(&["python3"])],
            Self::Git => vec![Remedy::Apt(&["git"])],
            Self::Ssh => vec![Remedy::Apt(&["openssh-client"])],
            Self::Slirp => vec![Remedy::Apt(&["slirp4netns"])],
            Self::Wget => vec![Remedy::Apt(&["wget"])],
            Self::Venv => vec![Remedy::Apt(&["python3-venv"])],
            Self::Npm => vec![Remedy::Apt(&["nodejs", "npm"])],
            Self::Chromium => vec![Remedy::Apt(&["chromium"])],
            Self::Chromedriver => vec![Remedy::Apt(&["chromium-driver"])],
            Self::Qemu => vec![Remedy::Apt(&["qemu-system-x86"]), Remedy::Qemu],
            Self::Mmdebstrap => vec![Remedy::Apt(&["mmdebstrap"])],
            Self::Cpio => vec![Remedy::Apt(&["cpio"])],
            Self::Depmod => vec![Remedy::Apt(&["kmod"])],
            Self::Strip => vec![Remedy::Apt(&["binutils"])],
            Self::Root => Vec::new(),
        }
    }

    /// What a person does where no remedy helps.
    const fn by_hand(self) -> &'static str {
        match self {
            Self::EbpfCompiler => {
                "`rustup toolchain install nightly --component rust-src`, or on Debian \
                 `apt-get install rustc-web libstd-rust-web-dev-bpf`"
            }
            Self::BpfLinker => "`cargo install bpf-linker --version 0.10.3 --locked`",
            Self::CargoDeny => "`cargo install cargo-deny --locked`",
            Self::Ip => "iproute2",
            Self::Setpriv => "util-linux",
            Self::Curl => "curl",
            Self::Python => "python3",
            Self::Git => "git",
            Self::Ssh => "ssh (openssh-client)",
            Self::Slirp => "slirp4netns",
            Self::Wget => "wget",
            Self::Venv => "python3's venv (python3-venv)",
            Self::Npm => "node and npm",
            Self::Chromium => "chromium",
            Self::Chromedriver => "chromedriver (chromium-driver)",
            Self::Qemu => "qemu-system-x86_64 (qemu-system-x86)",
            Self::Mmdebstrap => "mmdebstrap",
            Self::Cpio => "cpio",
            Self::Depmod => "depmod (kmod)",
            Self::Strip => "strip (binutils)",
            Self::Root => "sudo, or run this as root",
        }
    }
}

/// A way to install something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// A program from crates.io.
    Cargo { name: &'static str, version: Option<&'static str> },
    /// A rustup toolchain.
    Nightly,
    /// The emulator where a newer `qemu-utils` than the release's stands in its way.
    Qemu,
}

const QEMU: &str = "qemu-system-x86_64";

impl Remedy {
    /// The command, or `None` where this machine has no such installer, or none of these packages.
    fn command(self) -> Option<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Apt(packages) => {
                let known =
                    packages.iter().all(|package| succeeds("apt-cache", &["show", "--quiet=2", package]));
                if known { apt(&words(packages)) } else { None }
            }
            Self::Qemu => {
                let version = candidate("qemu-system-x86")?;
                apt(&["--allow-downgrades".into(), "qemu-system-x86".into(), format!("qemu-utils={version}")])
            }
            Self::Cargo { name, version } => {
                ebpf::program("cargo")?;
                let version = version.map(|version| words(&["--version", version])).unwrap_or_default();
                Some([words(&["cargo", "install", "--locked", name]), version].concat())
            }
            Self::Nightly => {
                ebpf::program("rustup")?;
                let install = ["rustup", "toolchain", "install", "nightly", "--profile", "minimal"];
                Some([words(&install), words(&["--component", "rust-src"])].concat())
            }
        }
    }
}

/// `apt-get install`, through sudo where that is needed.
fn apt(what: &[String]) -> Option<Vec<String>> {
    ebpf::program("apt-get")?;
    let mut command: Vec<String> = Vec::new();
    if !is_root() {
        ebpf::program("sudo")?;
        command.push("sudo".into());
    }
    let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
    command.extend(install.map(str::to_owned));
    command.extend_from_slice(what);
    Some(command)
}

/// The version of a package that would be installed.
fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache").args(["policy", package]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Runs the subcommand: all needs, or with `check` only a report.
///
/// # Errors
/// With one line that names what to install by hand.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    if check { finish(&missing(&Need::ALL)) } else { ensure(&Need::ALL) }
}

/// Sees to it that everything needed is there, installing what is not.
///
/// # Errors
/// With one line that names what to install by hand.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let left: Vec<Part> = missing(needs).into_iter().filter(|part| !install(*part)).collect();
    finish(&left)
}

fn missing(needs: &[Need]) -> Vec<Part> {
    needs.iter().flat_map(|need| need.parts()).copied().filter(|part| !report(*part)).collect()
}

fn finish(left: &[Part]) -> anyhow::Result<()> {
    if left.is_empty() { Ok(()) } else { bail!("install by hand: {}", by_hand(left)) }
}

#[expect(clippy::print_stderr, reason = "what a person at the terminal is told")]
fn report(part: Part) -> bool {
    match part.found() {
        Some(place) => {
            eprintln!("setup: {:<14} {place}", part.name());
            true
        }
        None => {
            eprintln!("setup: {:<14} missing", part.name());
            false
        }
    }
}

/// Tries each remedy until the need is met.
#[expect(clippy::print_stderr, reason = "what a person at the terminal is told")]
fn install(part: Part) -> bool {
    for command in part.remedies().into_iter().filter_map(Remedy::command) {
        eprintln!("setup: {:<14} installing: {}", part.name(), command.join(" "));
        match execute(&command) {
            Ok(()) if part.found().is_some() => return true,
            Ok(()) => eprintln!("setup: {:<14} still not found", part.name()),
            Err(error) => eprintln!("setup: {:<14} {error:#}", part.name()),
        }
    }
    false
}

fn execute(command: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Names the compiler of this very build; a program that is installed has its own.
        .env_remove("RUSTUP_TOOLCHAIN")
        .stdin(Stdio::inherit())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program}: {status}") }
}

fn by_hand(parts: &[Part]) -> String {
    parts.iter().map(|part| part.by_hand()).collect::<Vec<_>>().join("; ")
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let command = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn shown(path: Option<PathBuf>) -> Option<String> {
    path.as_deref().map(Path::display).map(|path| path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_says_what_to_do_by_hand() {
        for part in Need::ALL.iter().flat_map(|need| need.parts()) {
            assert!(!part.name().is_empty() && !part.by_hand().is_empty(), "{part:?}");
        }
        assert!(Part::BpfLinker.by_hand().contains(ebpf::BPF_LINKER));
        assert_eq!(by_hand(&[Part::Ip, Part::Curl]), "iproute2; curl");
        assert!(finish(&[]).is_ok());
        assert_eq!(finish(&[Part::Curl]).unwrap_err().to_string(), "install by hand: curl");
    }

    #[test]
    fn commands_name_their_versions() {
        let linker = Remedy::Cargo { name: "bpf-linker", version: Some("1.2.3") };
        if let Some(command) = linker.command() {
            assert_eq!(command.join(" "), "cargo install --locked bpf-linker --version 1.2.3");
        }
        assert_eq!(Remedy::Apt(&["no-such-package-of-any-name"]).command(), None);
    }
}
