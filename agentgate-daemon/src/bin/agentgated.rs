//! The daemon's entry: arguments, configuration, then `app`.

use std::{path::PathBuf, process::ExitCode};

use agentgate::{app, config::Config, telemetry};
use clap::Parser;

/// Requests are made of many small allocations that end in another thread than they began in, which the
/// system's allocator answers with locks, and with memory that it does not give back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// agentgated: the gate. Guards a cgroup, so that every connection of an agent is judged and
/// recorded.
///
/// Exit codes: 0 stopped as asked, 1 could not start or run, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Settings; without it ROOT/etc/agentgate/agentgate.toml, or the defaults if that is missing.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Everything lives below this directory: etc/agentgate, var/lib/agentgate, run/agentgate.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Check the settings and the policy, say what is wrong, and end.
    #[arg(long)]
    check_config: bool,
    /// What to log, such as `info` or `agentgate=debug`; overrides log.filter.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref(), &arguments.root) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                say(&error.to_string());
            }
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        return check(&config);
    }
    if let Err(error) =
        telemetry::install(arguments.log.as_deref().unwrap_or(&config.log.filter), config.log.format)
    {
        say(&format!("agentgated: {error}"));
        return ExitCode::from(2);
    }
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(config: &Config) -> ExitCode {
    let problems = app::check(config);
    for problem in &problems {
        say(problem);
    }
    if problems.is_empty() {
        say("settings and policy are in order");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}

#[expect(clippy::print_stderr, reason = "before there is a log, and for --check-config")]
fn say(line: &str) {
    eprintln!("{line}");
}
