//! `cargo xtask test clients`: real clients, unmodified, each twice: without the gate and through it. What
//! they print and what the origins receive must be the same, and every exchange must be on record.
//!
//! The outer half installs the kits and prints what came out; [`inside`] does the rest in the lab.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{lab, privilege, setup, setup::Need, test};

mod agents;
mod arrived;
mod case;
mod diff;
pub(crate) mod inside;
mod kit;
mod library;
mod report;

use case::Case;
use kit::Kit;
use report::Report;

/// Variables that name a trust bundle, which every client gets in both places: the gate's own list, so that
/// a client never runs with less trust directly.
const BUNDLE_VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "CODEX_CA_CERTIFICATE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

/// Of the step `clients`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Of the step clients")]
pub(crate) struct Options {
    /// Name the cases, and do nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Run directly twice and compare: shows that nothing random is taken for a difference
    #[arg(long)]
    direct_only: bool,
    /// Clients that cannot be installed are no failure; they are named at the end
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

/// Every case.
fn all() -> Vec<Case> {
    let mut cases = library::cases();
    cases.extend(agents::cases());
    cases
}

impl Case {
    fn is_meant(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.title().contains(text))
    }
}

fn meant(filter: Option<&str>) -> Vec<Case> {
    all().into_iter().filter(|case| case.is_meant(filter)).collect()
}

/// Names the cases.
pub(crate) fn list(filter: Option<&str>) -> ExitCode {
    for case in meant(filter) {
        println!("{}", case.title());
    }
    ExitCode::SUCCESS
}

/// Whether a case has such a name.
pub(crate) fn any(filter: Option<&str>) -> bool {
    all().iter().any(|case| case.is_meant(filter))
}

/// Installs what installs the kits, as far as it is to be had: what lacks is told with the cases.
pub(crate) fn prepare() {
    if let Err(error) = setup::ensure(&[Need::Clients]) {
        eprintln!("clients: {error:#}");
    }
}

/// As one step of several: what was not run and why, where that is allowed.
///
/// # Errors
/// When something differs, or could not be run.
pub(crate) fn step(filter: Option<&str>, options: &Options) -> anyhow::Result<Option<String>> {
    let report = measure(filter, options)?;
    let missing: usize = report.missing().values().sum();
    anyhow::ensure!(report.different() == 0, "{} cases differ", report.different());
    anyhow::ensure!(!report.rows.is_empty(), "no case of that name");
    let left_out = report.left_out();
    anyhow::ensure!(left_out.is_none() || options.allow_missing, "{missing} cases were not run");
    Ok(left_out)
}

/// The only step: 0 where all is equal, 1 where something differs, 2 where something could not be run.
pub(crate) fn alone(filter: Option<&str>, options: &Options) -> ExitCode {
    let mut needs = vec![Need::Build, Need::Lab];
    if options.allow_missing {
        prepare();
    } else {
        needs.push(Need::Clients);
    }
    match setup::ensure(&needs).and_then(|()| measure(filter, options)) {
        Ok(report) if report.different() > 0 => ExitCode::from(1),
        Ok(report) if report.rows.is_empty() => {
            eprintln!("error: no case of that name");
            ExitCode::from(2)
        }
        Ok(report) if !report.missing().is_empty() && !options.allow_missing => ExitCode::from(2),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure(filter: Option<&str>, options: &Options) -> anyhow::Result<Report> {
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let missing = install(&meant(filter), &cache)?;
    test::build_programs()?;
    let report = cache.join("report.json");
    if report.exists() {
        fs::remove_file(&report).with_context(|| report.display().to_string())?;
    }
    let orders = inside::Orders {
        filter: filter.map(str::to_owned),
        direct_only: options.direct_only,
        missing,
        cache,
        report: report.clone(),
        path: path()?,
    };
    let orders = serde_json::to_string(&orders)?;
    let status = privilege::this_as_root(&["lab", "clients", &orders])?.status().context("start the lab")?;
    let text = fs::read_to_string(&report).with_context(|| format!("the lab ended with {status}"))?;
    let report: Report = serde_json::from_str(&text).context("the report")?;
    if options.json {
        println!("{text}");
    } else {
        println!("\n{}", report.table());
    }
    Ok(report)
}

/// Installs what the cases need; gives the kits that are not to be had, with why.
fn install(cases: &[Case], cache: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut kits: Vec<&Kit> = Vec::new();
    for case in cases {
        if !kits.contains(&case.client.kit) {
            kits.push(case.client.kit);
        }
    }
    let mut missing = BTreeMap::new();
    for kit in kits {
        if let Some(why) = kit.install(cache).with_context(|| format!("the kit {}", kit.name))? {
            eprintln!("clients: the kit {} is not to be had: {why:#}", kit.name);
            missing.insert(kit.name.to_owned(), format!("{why:#}"));
        }
    }
    Ok(missing)
}

/// Where this person's programs are.
#[expect(clippy::disallowed_methods, reason = "handed on to clients, which start as this person's would")]
fn path() -> anyhow::Result<String> {
    env::var("PATH").context("PATH")
}

/// Where kits are installed: not in the repository's sources, and kept between runs.
fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.parent().unwrap_or(root).join("target/clients")
}

/// The part as root: a lab in which the cases run.
///
/// # Errors
/// When the lab cannot be built.
pub(crate) fn outside(orders: &str) -> anyhow::Result<ExitCode> {
    lab::outside::run(lab::Job::Clients(serde_json::from_str(orders).context("orders")?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn titles_are_told_apart_and_pinned_versions_are_there() {
        let cases = all();
        let titles: HashSet<String> = cases.iter().map(Case::title).collect();
        assert_eq!(titles.len(), cases.len());
        for case in &cases {
            if let case::Version::Pinned(package) = case.client.version {
                assert!(case.client.kit.version(package).is_some(), "{package} is in no manifest");
            }
            assert!(!case.says.is_empty() || case.requests > 0, "{} cannot fail", case.title());
        }
    }
}
