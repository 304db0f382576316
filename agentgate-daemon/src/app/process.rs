//! The daemon as a process: the real kernel under an `App`, the signals that end it, and what it must
//! not outlive.

use std::{io, sync::Arc, time::Duration};

use agentgate_common::names::PROGRAMS;
use anyhow::{Context as _, Error, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{App, Guard, origin_settings, policy_paths};
use crate::{
    config::Config,
    drain::told,
    handover::Sockets,
    kernel::{self, Attached, GuardedCgroup, Kernel as _, KernelError, LayerState},
    launch, privileges,
    reload::PolicyHandle,
    tls::OriginTls,
};

/// How often the links are looked at.
const VERIFY: Duration = Duration::from_secs(1);

/// Runs the daemon with the real kernel until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting, or from guarding, in one line with its causes. It is then to be
/// started again, and guards what is there.
pub fn run(config: Config) -> Result<()> {
    // All before the runtime: its threads begin with the capabilities of the one that starts them, and
    // none of them may see descriptors that are not yet known.
    kernel::spent::starting();
    let sockets = Sockets::received();
    privileges::limit().context("giving up capabilities")?;
    let cgroup = GuardedCgroup::find(&config.gate.cgroup)?;
    let pin_dir = config.gate.pin_dir.clone();
    let watch = kernel::watched(&cgroup, &config.gate.watch)?;
    let options = kernel::Options { cgroup: cgroup.directory().to_owned(), pin_dir, watch };
    let attached = Arc::new(Attached::start(&options)?);
    for (name, state) in attached.layers().each() {
        match state {
            LayerState::On => tracing::info!(layer = name, "in force"),
            LayerState::Absent(why) => tracing::warn!(layer = name, %why, "absent"),
        }
    }
    privileges::attached().context("giving up capabilities")?;
    let guard = Guard {
        enroller: launch::cgroup::enroller(cgroup.clone()),
        programs: PROGRAMS.iter().map(ToString::to_string).collect(),
        cgroup,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(async {
        let app = App::take_over(config, attached.clone(), guard, sockets).await?;
        let mut drain = app.drain.watch();
        let reader = attached.clone();
        let mut events =
            tokio::spawn(async move { reader.run_events(async move { told(&mut drain).await }).await });
        let told_to_stop = told_to_stop()?;
        let mut why = None;
        let audit = app.handles().audit;
        app.run(async {
            tokio::select! {
                () = told_to_stop => {}
                () = audit.ended() => {
                    why = Some(Error::msg("the audit thread ended: nothing can be recorded, so nothing passes"));
                }
                error = no_longer_guards(attached) => {
                    why = Some(Error::new(error).context("the cgroup is no longer guarded"));
                }
                ended = &mut events => {
                    let error = match ended {
                        Ok(Ok(())) => Error::msg("it ended"),
                        Ok(Err(error)) => error.into(),
                        Err(error) => error.into(),
                    };
                    why = Some(error.context("refusals by the kernel can no longer be recorded"));
                }
            }
        })
        .await;
        match why {
            None => events.await.context("the reader of kernel events")?.map_err(Error::from),
            Some(error) => Err(error),
        }
    })
}

/// Resolves when the guarded cgroup was removed, or removed and made again: its links go with it, and
/// the daemon would guard nothing. The kernel does not tell, so it is asked.
async fn no_longer_guards(attached: Arc<Attached>) -> KernelError {
    let mut tick = interval(VERIFY);
    loop {
        tick.tick().await;
        if let Err(error) = attached.verify() {
            return error;
        }
    }
}

/// Resolves on SIGTERM and SIGINT.
fn told_to_stop() -> io::Result<impl Future<Output = ()> + Send> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// What is wrong with the settings and the policy, without starting anything.
#[must_use]
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = PolicyHandle::load(policy_paths(config)).status().errors;
    if let Err(error) = OriginTls::load(&origin_settings(config)) {
        problems.push(error.to_string());
    }
    problems
}
