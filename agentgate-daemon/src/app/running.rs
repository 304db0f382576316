//! A gate that runs: every task is started here, and every one is told to end and waited for.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    App, Guard, Window, elsewhere,
    upkeep::{self, follow_policy, reload_on_hangup, sweep},
};
use crate::{
    audit::{Audit, retain},
    config::Retention,
    control::{
        self, ControlContext, DashboardAccess,
        wire::{GateReport, HookCount},
    },
    dashboard::{self, DashboardContext, LoginCodes},
    denials,
    drain::Tasks,
    export::mirror::Mirror,
    kernel::{Counter, Kernel, spent},
    model::{Kind, Record, State, Timestamp},
    namespaces::{self, Doors},
    reconcile,
    sentry::{self, CarefulEnroller, Enrolled},
    store::retention::Rules,
};

/// How long the audit log may take to write what is left, after everything else has stopped.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// The settings as the log takes them.
fn rules(retention: &Retention) -> Rules {
    let some = |number: u64| (number > 0).then_some(number);
    let days = |days: u64| some(days).map(|days| Duration::from_hours(days.saturating_mul(24)));
    Rules {
        age: days(retention.days),
        records: some(retention.records),
        bytes: some(retention.bytes),
        body_age: days(retention.body_days),
    }
}

impl App {
    /// Serves until `stop`, then drains: no more accepting, what is under way ends or is ended at the
    /// deadline, and the last records are written.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            config,
            handles,
            kernel,
            guard,
            stages,
            listeners,
            books,
            dns,
            dns_sockets,
            doors,
            window,
            host,
            wanted,
            ca,
            audit_thread,
            indexer,
            anchors,
            drain,
            started,
        } = self;
        let connections = Tasks::default();
        let services = Tasks::default();
        let (port, dns_port) = (listeners.port(), dns_sockets.port());
        let window_at = window.as_ref().map(|window| window.at);
        control_note(&handles.audit, "the gate started").await;
        let unheard = reconcile::Why::NoListener { before_ns: stages.since_ns };
        services.spawn({
            let (books, drain) = (books.clone(), drain.watch());
            async move {
                // Before the balance is looked at, and beside what goes on: there may be many of them.
                if let Err(error) = books.record_abandoned(unheard).await {
                    tracing::error!(%error, "connections made while no daemon listened are not recorded");
                }
                books.keep(drain).await;
            }
        });

        if let Some(events) = kernel.events() {
            services.spawn(denials::record(
                kernel.clone(),
                events,
                stages.sessions.clone(),
                handles.audit.clone(),
            ));
        }
        services.spawn(follow_policy(handles.policy.clone(), kernel.clone(), wanted, drain.watch()));
        services.spawn(host.run(drain.watch()));
        let watching = handles.policy.clone().watch(drain.watch());
        services.spawn(async move {
            if let Err(error) = watching.await {
                tracing::error!(%error, "policy files are not watched; reload with SIGHUP or agentctl policy reload");
            }
        });
        let mirror =
            upkeep::mirror(&config.audit.mirror).map(|settings| Mirror::new(handles.store.clone(), settings));
        services.spawn(retain::keep(
            handles.store.clone(),
            handles.audit.clone(),
            rules(&config.audit.retention),
            mirror.as_ref().map(Mirror::readers).unwrap_or_default(),
            drain.watch(),
        ));
        services.spawn(sweep(stages.clone(), drain.watch()));
        services.spawn(reload_on_hangup(handles.policy.clone(), drain.watch()));
        let enrolled = Enrolled::default();
        services.spawn(sentry::run(
            kernel.clone(),
            guard.cgroup.clone(),
            enrolled.clone(),
            stages.sessions.clone(),
            handles.audit.clone(),
            drain.watch(),
        ));

        let gate =
            gate_report(&guard, kernel.clone(), connections.clone(), port, window_at, started, drain.watch());
        if let Some(mirror) = &mirror {
            services.spawn(mirror.clone().run(drain.watch()));
        }
        let reports = anchors.reports();
        let gate: Arc<dyn Fn() -> GateReport + Send + Sync> =
            Arc::new(move || GateReport { checkpoints: reports(), ..gate() });
        // Not among the services: it has a last thing to send once these have ended.
        let anchoring = tokio::spawn(anchors.keep(drain.watch()));
        let codes = LoginCodes::default();
        let access = window.as_ref().map(|&Window { at, .. }| {
            let codes = codes.clone();
            DashboardAccess { listen: at, url: Arc::new(move || codes.url(at)) }
        });
        let context = ControlContext {
            policy: handles.policy.clone(),
            audit: handles.audit.clone(),
            store: handles.store.clone(),
            enroller: Arc::new(CarefulEnroller::new(kernel.clone(), guard.enroller.clone(), enrolled)),
            gate: gate.clone(),
            mirror: mirror.clone(),
            books: Some(books.clone()),
            ca_pem: ca,
            bundle: config.paths.bundle.clone(),
            hidden: control::wire::Hidden {
                places: config.run.hide.clone(),
                sockets: vec![config.paths.control_socket.clone(), config.paths.enrol_socket.clone()],
            },
            system_bundle: config.run.system_bundle,
            guarded: guard.cgroup.clone(),
            dashboard: access,
        };
        let context = Arc::new(context);
        for (door, listener) in doors {
            services.spawn(control::server::serve(door, listener, context.clone(), drain.watch()));
        }
        if let Some(Window { listener, at: listen, token }) = window {
            let context = DashboardContext {
                policy: handles.policy.clone(),
                audit: handles.audit.clone(),
                store: handles.store.clone(),
                token,
                codes,
                listen,
                status: Arc::new(move || serde_json::to_value(gate()).unwrap_or_default()),
            };
            services.spawn(dashboard::serve(listener, context, drain.watch()));
        }

        for socket in dns_sockets.udp {
            services.spawn(dns.clone().serve_udp(socket, None));
        }
        for listener in dns_sockets.tcp {
            services.spawn(dns.clone().serve_tcp(listener, None));
        }
        services.spawn(dns.clone().settle());
        let elsewhere = Doors {
            kernel: kernel.clone(),
            guarded: guard.cgroup.clone(),
            sessions: stages.sessions.clone(),
            audit: handles.audit.clone(),
            ports: namespaces::Ports { listener: port, dns: dns_port },
            serve: elsewhere::serve(
                stages.clone(),
                dns,
                connections.clone(),
                listeners.places(),
                drain.watch(),
            ),
        };
        services.spawn(elsewhere.run(drain.watch()));

        let accepting = {
            let connections = connections.clone();
            listeners.run(drain.watch(), move |accepted| connections.spawn(stages.clone().run(accepted)))
        };
        services.spawn(accepting);
        spent::started();
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        tracing::info!(port, cgroup = guard.cgroup.path(), mode = %handles.policy.current().mode(), "the gate is up");

        stop.await;
        tell_systemd(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping");
        drain.start();
        let deadline = config.limits.drain_timeout();
        let ended = connections.finish(deadline).await;
        if ended > 0 {
            tracing::warn!(ended, ?deadline, "connections were ended at the deadline");
        }
        control_note(&handles.audit, "the gate stopped; the programs stay attached").await;
        services.finish(Duration::from_secs(2)).await;
        if let Err(error) = books.close().await {
            tracing::error!(%error, "the balance of the audit log is left to the next start");
        }
        drop(books);
        drop(handles);
        // It waits for its thread, which may be in the midst of something.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(indexer)).await {
            tracing::error!(%error, "the text index did not stop as it should");
        }
        let drained = audit_thread.drain(LAST_WRITES).await;
        if drained.unwritten > 0 {
            tracing::error!(?drained, "records could not be written");
        }
        // The last records are in it.
        match anchoring.await {
            Ok(anchors) => anchors.close().await,
            Err(error) => tracing::error!(%error, "the last checkpoint is not sent"),
        }
    }
}

fn gate_report(
    guard: &Guard,
    kernel: Arc<dyn Kernel>,
    connections: Tasks,
    port: u16,
    dashboard: Option<SocketAddr>,
    started: Timestamp,
    drain: watch::Receiver<bool>,
) -> Arc<dyn Fn() -> GateReport + Send + Sync> {
    let (guarded, programs) = (guard.cgroup.path().to_owned(), guard.programs.clone());
    Arc::new(move || GateReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started,
        guarded: guarded.clone(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))],
        programs: programs.clone(),
        layers: Some(kernel.layers()),
        lost_events: kernel.lost_events().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel's counter of lost events cannot be read");
            u64::MAX
        }),
        unbooked: kernel.unbooked().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel's counter of what it could not count cannot be read");
            u64::MAX
        }),
        counters: kernel.counters().map_or_else(
            |error| {
                tracing::warn!(%error, "the kernel's counters cannot be read");
                Vec::new()
            },
            |all| {
                let count = |c: &Counter| HookCount {
                    hook: c.hook.to_owned(),
                    outcome: c.outcome.to_owned(),
                    count: c.count,
                };
                all.iter().map(count).collect()
            },
        ),
        connections: connections.len() as u64,
        dashboard,
        draining: *drain.borrow(),
        checkpoints: Vec::new(),
    })
}

async fn control_note(audit: &Audit, what: &str) {
    let mut record = Record::new(Kind::Control, Timestamp::now());
    record.state = State::Done;
    record.note = Some(what.to_owned());
    if let Err(error) = audit.note(record).await {
        tracing::error!(%error, what, "not recorded");
    }
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "sd_notify");
    }
}
