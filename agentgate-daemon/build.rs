//! Builds the eBPF object and leaves it in `OUT_DIR` for the daemon to embed.
//!
//! Without a toolchain the object is empty: the daemon builds, its other tests run, and it says at
//! start that it has no programs. A toolchain that is there and fails is an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "../xtask/src/ebpf.rs"]
mod ebpf;

use ebpf::{EbpfError, OBJECT_VARIABLE};

#[expect(
    clippy::disallowed_methods,
    reason = "cargo and the user speak to a build script through the environment"
)]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn main() -> ExitCode {
    match make() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result<(), EbpfError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(variable("OUT_DIR").unwrap_or_default());
    for watched in [
        "agentgate-ebpf/src",
        "agentgate-ebpf/Cargo.toml",
        "agentgate-common/src",
        "agentgate-common/Cargo.toml",
        "xtask/src/ebpf.rs",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");

    let embedded = out.join("agentgate-ebpf.o");
    let toolchain = match ebpf::find(ebpf::named_object()) {
        Ok(toolchain) => toolchain,
        Err(error @ EbpfError::NoToolchain(_)) => {
            println!("cargo::warning={error}");
            // Looked for again at the next build: cargo sees a file that does not exist as changed.
            println!("cargo::rerun-if-changed={}", out.join("no-toolchain").display());
            return fs::write(&embedded, []).map_err(|source| EbpfError::File { path: embedded, source });
        }
        Err(error) => return Err(error),
    };
    let object = ebpf::build(&toolchain, &root, &out.join("bpf"))?;
    if let ebpf::Toolchain::Object(path) = &toolchain {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    fs::copy(&object, &embedded).map(drop).map_err(|source| EbpfError::File { path: object, source })
}
