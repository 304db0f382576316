//! `cargo xtask tidy`: the habits that a machine can check.
//!
//! The import table of ARCHITECTURE.md, file sizes, module headers, names, and what must not stand in
//! a source file. Formatting and lints are other tools' work.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

mod imports;
#[cfg(test)]
mod tests;

/// Where sources are, below the workspace.
const ROOTS: [&str; 4] = ["agentgate-common", "agentgate-daemon", "agentgate-ebpf", "xtask"];
/// The habit, and the most, of lines without tests.
const HABIT: usize = 400;
const MOST: usize = 600;
/// Names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "helpers", "helper", "manager"];
/// Words of unfinished work. Written in halves, so that this file passes its own check.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Directories of one person's machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
/// Where `unsafe` may be.
const UNSAFE_PLACES: [&str; 10] = [
    "agentgate-daemon/src/handover/fdstore.rs",
    // Bypass attempts are made of system calls that no safe wrapper offers.
    "agentgate-daemon/src/selftest/sys/",
    "agentgate-daemon/src/control/peer.rs",
    "agentgate-daemon/src/kernel/",
    "agentgate-daemon/tests/",
    "agentgate-daemon/src/launch/",
    "agentgate-daemon/src/store/text/pacer.rs",
    "agentgate-common/src/pod.rs",
    "agentgate-ebpf/",
    "xtask/src/lab/namespace.rs",
];
/// Modules of the daemon that stay pure, and what they would not be pure with.
const PURE: [&str; 6] = ["model", "parse", "inspect", "policy", "words", "filter"];
const IMPURE: [&str; 5] = ["tokio::", "std::fs", "std::process", "Instant::now", "SystemTime::now"];

/// Prints findings and notes; fails on findings.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    check().map(|()| ExitCode::SUCCESS)
}

/// As [`run`], for the test command.
pub(crate) fn check() -> anyhow::Result<()> {
    let workspace = workspace();
    let mut files = Vec::new();
    for root in ROOTS {
        collect(&workspace.join(root), &mut files)?;
    }
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    for path in &files {
        let name = path.strip_prefix(&workspace).unwrap_or(path).to_string_lossy().into_owned();
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        findings.extend(examine(&name, &text));
        notes.extend(habits(&name, &text));
    }
    for note in &notes {
        println!("note: {note}");
    }
    println!("{} files examined", files.len());
    anyhow::ensure!(!files.is_empty(), "no source files below {}", workspace.display());
    anyhow::ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}

/// The workspace that this program was built from.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, into)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// What is wrong with a file; `name` is its path below the workspace.
fn examine(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{name}:1: no `//!` header that says what the module does"));
    }
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        findings.push(format!("{name}: the name {stem:?} says nothing"));
    }
    let length = without_tests(name, text).lines().count();
    if length > MOST {
        findings.push(format!("{name}: {length} lines without tests; the most is {MOST}"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        for word in UNFINISHED {
            if words(line).any(|found| found == word) {
                findings.push(format!("{place}: {word}: finish it or put it into the tracker"));
            }
        }
        for path in MACHINE_PATHS {
            if line.contains(path) {
                findings.push(format!("{place}: {path} is a path of one machine"));
            }
        }
        let allows_unsafe = line.contains("unsafe_code") && !line.contains("deny");
        if allows_unsafe
            && !UNSAFE_PLACES.iter().any(|known| name.starts_with(known))
            && !name.contains("tidy")
        {
            findings.push(format!("{place}: unsafe code has its places: {}", UNSAFE_PLACES.join(", ")));
        }
    }
    findings.extend(boundaries(name, text));
    findings
}

/// The import table and purity, for files of the daemon's library.
fn boundaries(name: &str, text: &str) -> Vec<String> {
    let Some(module) = imports::module(name) else {
        return Vec::new();
    };
    let code = without_tests(name, text);
    let mut findings: Vec<String> = imports::breaches(&module, &imports::of(&code, imports::is_top(name)))
        .into_iter()
        .map(|breach| format!("{name}: {breach}"))
        .collect();
    if PURE.contains(&module.as_str()) {
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for impure in IMPURE.iter().filter(|impure| code.contains(**impure)) {
                findings.push(format!("{name}:{}: {module} is pure: no {impure}", number + 1));
            }
        }
    }
    findings
}

/// What is not wrong but not the habit either.
fn habits(name: &str, text: &str) -> Vec<String> {
    let code = without_tests(name, text).lines().count();
    let tests = text.lines().count() - code;
    let mut notes = Vec::new();
    if code > HABIT && code <= MOST {
        notes.push(format!("{name}: {code} lines; the habit is {HABIT}"));
    }
    if code > 0 && tests > 110 {
        notes.push(format!("{name}: {tests} lines of tests inline; over 100 they go to a file of their own"));
    }
    notes
}

/// A file's text up to its tests; nothing of a file that is tests altogether.
fn without_tests(name: &str, text: &str) -> String {
    if name.ends_with("/tests.rs") || name.contains("/tests/") || name.contains("/benches/") {
        return String::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.windows(2).position(|pair| {
        matches!(pair, [attribute, module] if attribute.trim() == "#[cfg(test)]" && module.ends_with("mod tests {"))
    });
    let code = lines.get(..end.unwrap_or(lines.len())).unwrap_or_default();
    code.iter().flat_map(|line| [line, "\n"]).collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}
