//! What goes on beside the connections: the kernel follows the policy, SIGHUP reloads it, idle
//! connections are closed.

use std::{sync::Arc, time::Duration};

use agentgate_common::settings::Settings;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config,
    conn::Stages,
    drain::told,
    export::{Format, mirror},
    kernel::{Kernel, UdpRange, spent::give_back},
    policy::{self, Policy},
    reload::PolicyHandle,
};

/// How often idle origin connections are looked over.
const SWEEP: Duration = Duration::from_secs(15);

/// What the kernel's settings are made of, besides the policy.
pub(super) struct Wanted {
    /// The DNS server's.
    pub(super) dns_port: u16,
    /// The gate's own ports; the listener's first.
    pub(super) own_ports: Vec<u16>,
}

impl Wanted {
    pub(super) fn settings(&self, policy: &Policy) -> Settings {
        let mut settings = Settings {
            listener_port: self.own_ports.first().copied().unwrap_or(0),
            dns_port: self.dns_port,
            loopback_own: policy.loopback_own().into(),
            ..Settings::default()
        };
        for (slot, port) in settings.gate_ports.iter_mut().zip(&self.own_ports) {
            *slot = *port;
        }
        for (slot, port) in settings.loopback_ports.iter_mut().zip(policy.loopback_ports()) {
            *slot = *port;
        }
        settings
    }
}

/// The UDP that a policy lets pass, for the kernel.
pub(super) fn udp(policy: &Policy) -> Vec<UdpRange> {
    let range = |range: &policy::UdpRange| UdpRange { net: range.net, ports: range.ports.clone() };
    policy.udp_ranges().iter().map(range).collect()
}

/// Installs the kernel's part of each policy, also of one that came in while the gate was built.
pub(super) async fn follow_policy(
    policy: PolicyHandle,
    kernel: Arc<dyn Kernel>,
    wanted: Wanted,
    mut drain: watch::Receiver<bool>,
) {
    let mut generation = policy.subscribe();
    loop {
        let current = policy.current();
        if let Err(error) = kernel.configure(&wanted.settings(&current)) {
            tracing::error!(%error, "the kernel keeps the settings of the policy before");
        }
        if let Err(error) = kernel.set_udp(&udp(&current)) {
            tracing::error!(%error, "the kernel keeps the UDP of the policy before");
        }
        tokio::select! {
            changed = generation.changed() => if changed.is_err() { return },
            () = told(&mut drain) => return,
        }
    }
}

/// What is to be mirrored; `None` where nothing is.
pub(super) fn mirror(of: &config::Mirror) -> Option<mirror::Settings> {
    let path = of.path.clone()?;
    let format = match of.format {
        config::MirrorFormat::Jsonl => Format::Jsonl,
        config::MirrorFormat::Ocsf => Format::Ocsf,
        config::MirrorFormat::Csv => Format::Csv,
    };
    Some(mirror::Settings {
        path,
        format,
        rotate_bytes: of.rotate_bytes,
        rotate_hours: of.rotate_hours,
        compress: of.compress,
        keep: of.keep,
        bodies: of.bodies,
    })
}

/// Closes idle origin connections, and gives back what a time of traffic has left of memory.
pub(super) async fn sweep(stages: Arc<Stages>, mut drain: watch::Receiver<bool>) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut written, mut given_back) = (0, 0);
    loop {
        tokio::select! {
            _ = tick.tick() => stages.exchanger.forwarder.sweep(),
            () = told(&mut drain) => return,
        }
        // Under load it would only be asked for again.
        let before = std::mem::replace(&mut written, stages.exchanger.audit.health().written);
        if written == before && written != given_back {
            give_back();
            given_back = written;
        }
    }
}

/// Reloads the policy on SIGHUP.
pub(super) async fn reload_on_hangup(policy: PolicyHandle, mut drain: watch::Receiver<bool>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP will not reload the policy");
            return;
        }
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = told(&mut drain) => return,
        }
        let policy = policy.clone();
        match spawn_blocking(move || policy.reload().map_err(Box::new)).await {
            Ok(Ok(status)) => tracing::info!(digest = status.summary.digest, "policy reloaded"),
            Ok(Err(status)) => {
                tracing::error!(errors = ?status.errors, "policy kept: the files do not compile")
            }
            Err(error) => tracing::error!(%error, "reloading the policy"),
        }
    }
}
