//! `agentctl mode`.

use super::{Failure, Session};
use crate::{
    control::wire::{Payload, Request},
    model::Mode,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// enforce, blocklist, audit, or default for what policy.toml says; without it the mode is shown
    #[arg(value_parser = parse)]
    mode: Option<Choice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Override(Mode),
    Default,
}

fn parse(text: &str) -> Result<Choice, String> {
    match text {
        "default" => Ok(Choice::Default),
        name => name.parse().map(Choice::Override).map_err(|error| format!("{error}, or default")),
    }
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let request = match args.mode {
        None => Request::ModeGet,
        Some(Choice::Override(mode)) => Request::ModeSet { mode: Some(mode) },
        Some(Choice::Default) => Request::ModeSet { mode: None },
    };
    let Payload::Mode { mode } = session.ask(request)? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        session.output.json(&serde_json::json!({ "mode": mode }))
    } else {
        session.output.line(mode.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_default() {
        assert_eq!(parse("audit"), Ok(Choice::Override(Mode::Audit)));
        assert_eq!(parse("default"), Ok(Choice::Default));
        assert!(parse("off").unwrap_err().contains("default"));
    }
}
