//! Building the eBPF object: which toolchain, and how.
//!
//! Only `std`, because `agentgate-daemon/build.rs` includes this file too. Nothing is installed
//! here; that is `setup`. In order: an object that the user names, a rustup nightly with `rust-src`,
//! Debian's `rustc-web` with `libstd-rust-web-dev-bpf`.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Environment variable that names a ready object, for builds where no toolchain is to be had.
pub(crate) const OBJECT_VARIABLE: &str = "AGENTGATE_BPF_OBJECT";
/// What `cargo build` puts beside itself.
const PACKAGE: &str = "agentgate-ebpf";
/// The linker's version that fits the compilers named above: it loads the compiler's own LLVM.
pub(crate) const BPF_LINKER: &str = "0.10.3";
/// Debian's compiler, which has a prebuilt `core` for BPF beside it.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A way to come to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The user's object.
    Object(PathBuf),
    /// A rustup toolchain of the nightly channel with `rust-src`: `core` is built from source.
    Nightly { name: String, sysroot: PathBuf },
    /// Debian's compiler with a prebuilt `core`; `llvm` is where the linker finds its LLVM.
    Debian { rustc: PathBuf, llvm: PathBuf },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(path) => write!(f, "the object {}", path.display()),
            Self::Nightly { name, .. } => write!(f, "rustup toolchain {name} with rust-src"),
            Self::Debian { rustc, .. } => write!(f, "Debian's {} with its BPF core", rustc.display()),
        }
    }
}

/// Why there is no object.
#[derive(Debug)]
pub(crate) enum EbpfError {
    /// No toolchain, or no linker.
    NoToolchain(Vec<&'static str>),
    /// A file could not be read or written.
    File { path: PathBuf, source: io::Error },
    /// A program could not be started.
    Start { program: OsString, source: io::Error },
    /// The compiler or linker failed.
    Build { toolchain: Toolchain, stderr: String },
}

impl std::error::Error for EbpfError {}

impl fmt::Display for EbpfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain(missing) => write!(
                f,
                "no eBPF toolchain ({}): run `cargo xtask setup`, or install by hand either \
                 `rustup toolchain install nightly --component rust-src` or, on Debian, \
                 `apt-get install rustc-web libstd-rust-web-dev-bpf`, and with both \
                 `cargo install bpf-linker --version {BPF_LINKER} --locked`",
                missing.join("; ")
            ),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Start { program, source } => write!(f, "{}: {source}", program.to_string_lossy()),
            Self::Build { toolchain, stderr } => {
                write!(f, "the eBPF programs do not build with {toolchain}:\n{stderr}")
            }
        }
    }
}

/// Finds the first way that works on this machine.
///
/// # Errors
/// [`EbpfError::NoToolchain`] with what each way lacks.
pub(crate) fn find(object: Option<OsString>) -> Result<Toolchain, EbpfError> {
    if let Some(path) = object.filter(|path| !path.is_empty()) {
        return Ok(Toolchain::Object(PathBuf::from(path)));
    }
    let mut missing = Vec::new();
    if linker().is_none() {
        missing.push("bpf-linker is not installed");
    }
    let toolchain = nightly().or_else(debian);
    if toolchain.is_none() {
        missing
            .push("neither a nightly with rust-src nor Debian's rustc-web with a core for BPF is installed");
    }
    match toolchain {
        Some(toolchain) if missing.is_empty() => Ok(toolchain),
        Some(_) | None => Err(EbpfError::NoToolchain(missing)),
    }
}

/// Builds the object of the workspace at `root` and gives its path, below `target`.
///
/// # Errors
/// When the compiler or linker fails, or the user's object cannot be read.
pub(crate) fn build(toolchain: &Toolchain, root: &Path, target: &Path) -> Result<PathBuf, EbpfError> {
    let mut command = match toolchain {
        Toolchain::Object(path) => {
            return match fs::metadata(path) {
                Ok(_) => Ok(path.clone()),
                Err(source) => Err(EbpfError::File { path: path.clone(), source }),
            };
        }
        Toolchain::Nightly { name, sysroot } => {
            let mut command = Command::new("rustup");
            command.args(["run", name, "cargo", "build", "-Zbuild-std=core"]);
            command.env_remove("RUSTC").env("LD_LIBRARY_PATH", sysroot.join("lib"));
            command
        }
        Toolchain::Debian { rustc, llvm } => {
            let mut command = Command::new(cargo());
            // aya-ebpf uses an unstable feature, which a stable compiler has under this name.
            command.arg("build").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command.env("LD_LIBRARY_PATH", llvm);
            command
        }
    };
    let triple = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    command
        .current_dir(root)
        .args(["--release", "--locked", "--quiet", "--package", PACKAGE, "--target", triple, "--target-dir"])
        .arg(target)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{ARCH}\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf"),
        )
        // The workspace's profile is made for the host.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    // Set by the cargo or clippy that runs the build script, for its own compiler.
    for name in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
    if let Some(directory) = linker().as_deref().and_then(Path::parent) {
        command.env("PATH", prepended(directory));
    }
    let output = run(&mut command)?;
    if !output.status.success() {
        return Err(EbpfError::Build {
            toolchain: toolchain.clone(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(target.join(triple).join("release").join(PACKAGE))
}

/// The linker, if it is installed.
pub(crate) fn linker() -> Option<PathBuf> {
    program("bpf-linker")
}

/// A program on the search path or where `cargo install` puts it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let installed = cargo_home().map(|home| home.join("bin"));
    path().into_iter().chain(installed).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The user's choice of an object.
#[expect(clippy::disallowed_methods, reason = "the user speaks to a build through the environment")]
pub(crate) fn named_object() -> Option<OsString> {
    std::env::var_os(OBJECT_VARIABLE)
}

/// The first rustup toolchain of the nightly channel that has `rust-src`.
pub(crate) fn nightly() -> Option<Toolchain> {
    let list = stdout(Command::new("rustup").args(["toolchain", "list"]))?;
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .find_map(|name| {
            let sysroot = sysroot(Command::new("rustup").args(["run", name, "rustc"]))?;
            let source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
            source.is_file().then(|| Toolchain::Nightly { name: name.to_owned(), sysroot })
        })
}

/// Debian's compiler, if it has a `core` for BPF and there is an LLVM for the linker.
pub(crate) fn debian() -> Option<Toolchain> {
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    let own = sysroot(&mut Command::new(&rustc))?;
    let triple = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let core = holds(&own.join("lib/rustlib").join(triple).join("lib"), "libcore-");
    // The linker reads with this LLVM what the compiler wrote with its own.
    let llvm = llvm()?;
    core.then_some(Toolchain::Debian { rustc, llvm })
}

/// A directory with an LLVM that the linker can load: that of the compiler in use, or Debian's.
fn llvm() -> Option<PathBuf> {
    let own = sysroot(&mut Command::new("rustc")).map(|sysroot| sysroot.join("lib"));
    if let Some(own) = own.filter(|dir| holds(dir, "libLLVM")) {
        return Some(own);
    }
    // Debian's own LLVMs, the newest.
    (20..100)
        .rev()
        .map(|major| PathBuf::from(format!("/usr/lib/llvm-{major}/lib")))
        .find(|dir| holds(dir, "libLLVM"))
}

fn holds(directory: &Path, prefix: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
    })
}

fn sysroot(command: &mut Command) -> Option<PathBuf> {
    stdout(command.args(["--print", "sysroot"])).map(|text| PathBuf::from(text.trim()))
}

/// Standard output of a command that succeeded.
fn stdout(command: &mut Command) -> Option<String> {
    let output = run(command.env_remove("RUSTUP_TOOLCHAIN")).ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(command: &mut Command) -> Result<Output, EbpfError> {
    command.output().map_err(|source| EbpfError::Start { program: command.get_program().to_owned(), source })
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script through the environment where it is"
)]
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[expect(clippy::disallowed_methods, reason = "cargo's own rule for where it installs programs")]
fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

#[expect(clippy::disallowed_methods, reason = "the search path of programs is an environment variable")]
fn path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn prepended(directory: &Path) -> OsString {
    // Joining fails only for a directory with a colon in it, which a search path cannot hold.
    std::env::join_paths(std::iter::once(directory.to_owned()).chain(path()))
        .unwrap_or_else(|_| directory.into())
}
