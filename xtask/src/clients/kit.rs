//! Kits: sets of clients out of one registry, at pinned versions, in a cache below `target/clients`.
//!
//! A kit is a directory of this repository: `requirements.txt` for Python, or `package.json` with its
//! lock for Node, and beside it the scripts that use what is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

/// Where a kit's clients come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Programs of the system, which `cargo xtask setup` sees to.
    System,
    /// A virtual environment from PyPI.
    Python,
    /// A `node_modules` from npm.
    Node,
}

/// One set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kit {
    /// Of the cache's directory and, but for the system's, of the repository's.
    pub(crate) name: &'static str,
    pub(crate) source: Source,
}

/// What the system's package manager has.
pub(crate) const SYSTEM: Kit = Kit { name: "system", source: Source::System };
/// Python's HTTP clients and the providers' SDKs.
pub(crate) const PYTHON: Kit = Kit { name: "python", source: Source::Python };
/// Node's.
pub(crate) const NODE: Kit = Kit { name: "node", source: Source::Node };

/// How long one installer may take, in seconds: with all kits out of reach, what CI may take is not exceeded.
const LONGEST: u32 = 240;
/// How long a registry may be silent, in seconds.
const SILENT: &str = "20";

/// What was installed last, so that nothing is installed twice.
const STAMP: &str = ".installed";

impl Kit {
    /// Where it is installed.
    pub(crate) fn home(&self, cache: &Path) -> PathBuf {
        cache.join(self.name)
    }

    /// Where its programs are.
    pub(crate) fn programs(&self, cache: &Path) -> Option<PathBuf> {
        match self.source {
            Source::System => None,
            Source::Python => Some(self.home(cache).join("bin")),
            Source::Node => Some(self.home(cache).join("node_modules/.bin")),
        }
    }

    /// Its directory in the repository.
    fn sources(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clients/kits").join(self.name)
    }

    fn manifests(&self) -> &'static [&'static str] {
        match self.source {
            Source::System => &[],
            Source::Python => &["requirements.txt"],
            Source::Node => &["package.json", "package-lock.json"],
        }
    }

    /// The version that is pinned of a package; `None` where it is not in the manifest.
    pub(crate) fn version(&self, package: &str) -> Option<String> {
        let text = fs::read_to_string(self.sources().join(self.manifests().last()?)).ok()?;
        match self.source {
            Source::System => None,
            Source::Python => text.lines().find_map(|line| {
                let (name, version) = line.split_once("==")?;
                name.eq_ignore_ascii_case(package).then(|| version.trim().to_owned())
            }),
            Source::Node => {
                let lock: serde_json::Value = serde_json::from_str(&text).ok()?;
                let found = lock.pointer(&format!("/packages/node_modules~1{}", package.replace('/', "~1")));
                Some(found?.get("version")?.as_str()?.to_owned())
            }
        }
    }

    /// Sees to it that it is installed as the manifest says, with the scripts beside it.
    ///
    /// Where it is not to be had, because an installer is missing or fails, why: the end of what it said.
    ///
    /// # Errors
    /// When a manifest cannot be read, or nothing be written.
    pub(crate) fn install(&self, cache: &Path) -> anyhow::Result<Option<anyhow::Error>> {
        if self.source == Source::System {
            return Ok(None);
        }
        let (home, sources) = (self.home(cache), self.sources());
        let mut wanted = String::new();
        for manifest in self.manifests() {
            wanted.push_str(
                &fs::read_to_string(sources.join(manifest)).with_context(|| (*manifest).to_owned())?,
            );
        }
        let stamp = home.join(STAMP);
        if fs::read_to_string(&stamp).ok().as_deref() != Some(wanted.as_str()) {
            // Half of an earlier installation, or another version's.
            if home.exists() {
                fs::remove_dir_all(&home).with_context(|| home.display().to_string())?;
            }
            fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
            for manifest in self.manifests() {
                fs::copy(sources.join(manifest), home.join(manifest))?;
            }
            eprintln!("clients: installing the kit {} in {}", self.name, home.display());
            if let Err(why) = self.fetch(&home) {
                return Ok(Some(why));
            }
            fs::write(&stamp, wanted)?;
        }
        for entry in fs::read_dir(&sources).with_context(|| sources.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let manifest = self.manifests().iter().any(|manifest| name == *manifest);
            if path.is_file() && !manifest {
                fs::copy(&path, home.join(name))?;
            }
        }
        Ok(None)
    }

    fn fetch(&self, home: &Path) -> anyhow::Result<()> {
        match self.source {
            Source::System => Ok(()),
            Source::Python => {
                quietly("python3", bounded().args(["python3", "-m", "venv"]).arg(home))?;
                let mut pip = bounded();
                pip.arg(home.join("bin/pip"));
                pip.args(["install", "--quiet", "--disable-pip-version-check"]);
                pip.args(["--timeout", SILENT, "--retries", "2", "--requirement"]);
                quietly("pip", pip.arg(home.join("requirements.txt")))
            }
            Source::Node => {
                let mut npm = bounded();
                npm.args(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]);
                npm.args(["--fetch-retries=2", "--fetch-timeout"]).arg(format!("{SILENT}000"));
                quietly("npm", npm.current_dir(home))
            }
        }
    }
}

/// A command with its words to come, that ends with all its children when its time is over.
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &LONGEST.to_string()]);
    command
}

/// Runs an installer; what it says is shown only where it fails.
fn quietly(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    // Of timeout(1): 124 once it was over, 137 where that took a kill.
    anyhow::ensure!(
        !matches!(output.status.code(), Some(124 | 137)),
        "{name}: not at its end after {LONGEST} s"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let end = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join(" | ");
    anyhow::ensure!(output.status.success(), "{name}: {}: {end}", output.status);
    Ok(())
}
