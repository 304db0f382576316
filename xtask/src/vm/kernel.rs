//! Debian's kernels: the newest of a series that the package sources have, fetched and unpacked.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// One that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) version: String,
    pub(super) vmlinuz: PathBuf,
    /// Its directory below `lib/modules`.
    pub(super) modules: PathBuf,
}

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// The newest of `series` (such as `6.12`), unpacked below `work`. What is there already is not fetched
/// again, and serves where no package source can be asked.
///
/// # Errors
/// When there is none, or it cannot be fetched or unpacked.
pub(super) fn newest(series: &str, work: &Path) -> anyhow::Result<Kernel> {
    let listed = output("apt-cache", &["search", "--names-only", &format!("^{PREFIX}{series}")])?;
    let offered = listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let mut there = Vec::new();
    for entry in fs::read_dir(work)? {
        there.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let package = best(series, offered.chain(there))
        .with_context(|| format!("no package source has {PREFIX}{series}.*{SUFFIX}: run apt-get update"))?;
    let unpacked = work.join(&package);
    if !unpacked.is_dir() {
        println!("fetching {package}");
        fetch(&package, work, &unpacked)?;
    }
    let version = package.strip_prefix(PREFIX).unwrap_or(&package).to_owned();
    let vmlinuz = unpacked.join(format!("boot/vmlinuz-{version}"));
    let modules = unpacked.join("lib/modules").join(&version);
    for path in [&vmlinuz, &modules] {
        anyhow::ensure!(path.exists(), "{} is not in {package}", path.display());
    }
    Ok(Kernel { version, vmlinuz, modules })
}

/// Fetches a package and unpacks it: into another directory first, so that a half is never taken for a
/// whole.
fn fetch(package: &str, work: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let half = work.join("half");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    fs::create_dir(&half)?;
    let status = Command::new("apt-get").args(["download", package]).current_dir(&half).status();
    anyhow::ensure!(status.context("start apt-get")?.success(), "apt-get download {package} failed");
    let file = fs::read_dir(&half)?.next().context("apt-get fetched nothing")??.path();
    let into = half.join("unpacked");
    let status = Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&into).status();
    anyhow::ensure!(status.context("start dpkg-deb")?.success(), "{} cannot be unpacked", file.display());
    fs::rename(&into, unpacked)?;
    fs::remove_dir_all(&half)?;
    Ok(())
}

/// The newest of these names that is a kernel of the series, and no package that only names one.
fn best(series: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let of_series = |name: &String| {
        let version = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        let rest = version.and_then(|version| version.strip_prefix(series));
        rest.is_some_and(|rest| {
            rest.strip_prefix('.').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    names.filter(of_series).max_by(|one, other| compare(one, other))
}

/// Numbers by their value, everything else by its letters.
fn compare(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut parts = vec![(0, String::new())];
        let mut digits = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            if !digits.is_empty() {
                parts.push((digits.parse().unwrap_or(u64::MAX), String::new()));
                digits.clear();
            }
            if let Some((_, word)) = parts.last_mut() {
                word.push(c);
            }
        }
        parts
    };
    parts(one).cmp(&parts(other))
}

/// What a command printed.
fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_by_number() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-7-cloud-amd64",
            "linux-image-6.1.0-99-cloud-amd64-unsigned",
            "linux-image-6.1.0-99-rt-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "6.12.117.log",
        ];
        let of = |series| best(series, names.into_iter().map(str::to_owned));
        assert_eq!(of("6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(of("6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(of("6.6"), None);
    }
}
