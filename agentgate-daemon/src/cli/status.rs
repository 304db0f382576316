//! `agentctl status`.

use super::{
    Failure, Session,
    terminal::{Colour, escape},
};
use crate::{
    control::wire::{LayerState, Layers, Payload, PlaceReport, Request, StatusReport},
    model::Timestamp,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Exit with 1 unless the policy on disk is in force and the audit log can be written
    #[arg(long)]
    check: bool,
}

pub(super) fn run(session: &mut Session, args: &Args) -> Result<(), Failure> {
    let Payload::Status(status) = session.ask(Request::Status)? else {
        return Err(Failure::Unexpected);
    };
    if session.output.json {
        session.output.json(&status)?;
    } else {
        for (label, value, fault) in rows(&status, Timestamp::now()) {
            let value = escape(&value);
            let value = if fault { session.output.paint(Colour::Red, &value) } else { value };
            session.output.line(&format!("{label:<12} {value}"))?;
        }
    }
    if args.check && !is_well(&status) {
        session.output.flush()?;
        return Err(Failure::Unhealthy);
    }
    Ok(())
}

fn is_well(status: &StatusReport) -> bool {
    status.policy.errors.is_empty() && status.audit.healthy && status.audit.error.is_none()
}

/// Label, value, and whether it is a fault.
fn rows(status: &StatusReport, now: Timestamp) -> Vec<(&'static str, String, bool)> {
    let (gate, policy, audit) = (&status.gate, &status.policy, &status.audit);
    let up = now.since(gate.started) / 1_000_000;
    let mut rows = vec![
        (
            "agentgated",
            format!(
                "{} pid {}, up {}{}",
                gate.version,
                gate.pid,
                duration(up),
                if gate.draining { ", stopping" } else { "" }
            ),
            gate.draining,
        ),
        ("guards", format!("{} ({})", gate.guarded, gate.programs.join(" ")), gate.programs.is_empty()),
        ("listens", list(&gate.listen), gate.listen.is_empty()),
        ("connections", gate.connections.to_string(), false),
        (
            "policy",
            format!(
                "{}{}; allow {}, deny {}, passthrough {}; loaded {} ({})",
                policy.summary.mode,
                if policy.mode_overridden { " (not as in policy.toml)" } else { "" },
                policy.summary.allow,
                policy.summary.deny,
                policy.summary.passthrough,
                policy.loaded_at.map_or_else(|| "never".to_owned(), |time| time.to_string()),
                policy.summary.digest.chars().take(12).collect::<String>()
            ),
            false,
        ),
        ("network", policy.summary.network(), false),
    ];
    if !policy.errors.is_empty() {
        let before = if policy.loaded_at.is_some() { "the one before stays" } else { "nothing passes" };
        rows.push(("", format!("the policy on disk is not in force, {before}:"), true));
    }
    rows.extend(policy.errors.iter().map(|error| ("", error.clone(), true)));
    rows.push(match &audit.error {
        Some(error) => ("audit", format!("cannot write, so nothing is let through: {error}"), true),
        None if audit.healthy => {
            ("audit", format!("{} written, {} waiting", audit.written, audit.queued), false)
        }
        None => ("audit", "cannot write, so nothing is let through".to_owned(), true),
    });
    let places = gate.checkpoints.iter().enumerate();
    rows.extend(places.map(|(n, PlaceReport { place, entries, taken, error })| {
        let had = taken.as_ref().map_or_else(
            || "has none since the start".to_owned(),
            |taken| {
                format!("has that of {entries} entries, since {}", duration(now.since(*taken) / 1_000_000))
            },
        );
        let fault = error.as_ref().map(|error| format!("; does not take another: {error}"));
        let label = if n == 0 { "checkpoints" } else { "" };
        (label, format!("{place} {had}{}", fault.as_deref().unwrap_or_default()), error.is_some())
    }));
    rows.extend(audit.mirror.iter().map(|mirror| {
        let lost = match mirror.lost {
            0 => String::new(),
            lost => format!("; {lost} entries were gone before it came to them"),
        };
        let lost = if mirror.waited_for { format!("; retention waits for it{lost}") } else { lost };
        let place = mirror.path.display();
        match (&mirror.error, mirror.since) {
            (Some(error), since) => {
                let since = since.map_or_else(String::new, |since| format!(" since {since}"));
                ("mirror", format!("stands{since}, {} entries behind: {error}{lost}", mirror.behind), true)
            }
            (None, _) => {
                ("mirror", format!("{place}, {} entries behind{lost}", mirror.behind), mirror.lost > 0)
            }
        }
    }));
    let layers = gate.layers.iter().flat_map(Layers::each);
    rows.extend(layers.enumerate().map(|(n, (name, state))| {
        let state = match state {
            LayerState::On => "on".to_owned(),
            LayerState::Absent(why) => format!("absent: {why}"),
        };
        (if n == 0 { "layers" } else { "" }, format!("{name} {state}"), false)
    }));
    if gate.lost_events > 0 {
        rows.push(("kernel", format!("{} refusals could not be recorded singly", gate.lost_events), true));
    }
    if gate.unbooked > 0 {
        rows.push(("", format!("{} events found no room in the kernel's books", gate.unbooked), true));
    }
    rows.push((
        "dashboard",
        gate.dashboard.map_or_else(|| "off".to_owned(), |listen| format!("{listen} (`agentctl dashboard`)")),
        false,
    ));
    rows
}

fn list(addresses: &[std::net::SocketAddr]) -> String {
    if addresses.is_empty() {
        return "nowhere".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Two units are enough: `3d 4h`, `5m 6s`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::wire::{AuditReport, GateReport},
        policy::Policy,
        reload::PolicyStatus,
    };

    fn status() -> StatusReport {
        StatusReport {
            gate: GateReport {
                version: "0.1.0".into(),
                pid: 7,
                started: Timestamp(0),
                guarded: "/agent.slice".into(),
                listen: vec!["127.0.0.1:7879".parse().unwrap()],
                programs: vec!["connect4".into()],
                layers: None,
                lost_events: 0,
                unbooked: 0,
                counters: Vec::new(),
                connections: 2,
                dashboard: None,
                draining: false,
                checkpoints: Vec::new(),
            },
            policy: PolicyStatus {
                generation: 1,
                summary: Policy::closed().summary(),
                mode_overridden: false,
                loaded_at: Some(Timestamp(0)),
                tried_at: Timestamp(0),
                errors: Vec::new(),
            },
            audit: AuditReport {
                healthy: true,
                error: None,
                queued: 0,
                written: 5,
                mirror: None,
                pace: None,
            },
        }
    }

    #[test]
    fn faults_stand_out() {
        let faults = |status: &StatusReport| rows(status, Timestamp(0)).iter().filter(|row| row.2).count();
        let good = status();
        assert_eq!(faults(&good), 0);
        let mut bad = status();
        bad.policy.errors = vec!["policy.toml:1:1: x".into(), "y".into()];
        bad.audit = AuditReport {
            healthy: false,
            error: Some("disk full".into()),
            queued: 9,
            written: 5,
            mirror: None,
            pace: None,
        };
        bad.gate.lost_events = 3;
        bad.gate.unbooked = 1;
        bad.gate.draining = true;
        bad.gate.checkpoints = vec![
            PlaceReport { place: "file".into(), ..PlaceReport::default() },
            PlaceReport {
                place: "webhook".into(),
                error: Some("answered with 500".into()),
                ..PlaceReport::default()
            },
        ];
        assert_eq!(faults(&bad), 8);
        let line = "the policy on disk is not in force, the one before stays:";
        assert!(rows(&bad, Timestamp(0)).iter().any(|row| row.1 == line));
    }

    #[test]
    fn a_check_fails_on_what_must_not_stay_so() {
        let row = |change: fn(&mut StatusReport)| {
            let mut status = status();
            change(&mut status);
            is_well(&status)
        };
        assert!(row(|_| {}));
        assert!(row(|status| status.gate.lost_events = 3), "counted since the programs were attached");
        assert!(!row(|status| status.policy.errors = vec!["policy.toml:1:1: x".into()]));
        assert!(!row(|status| status.audit.healthy = false));
        assert!(!row(|status| status.audit.error = Some("disk full".into())));
    }

    #[test]
    fn durations_in_two_units() {
        for (seconds, expect) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_061, "1d 1h")]
        {
            assert_eq!(duration(seconds), expect);
        }
    }
}
