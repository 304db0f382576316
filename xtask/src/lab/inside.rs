//! The inner process of a lab: leaves the machine's namespaces, builds the wires, does the job.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use fake_internet::world;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Job, Programs, RESTARTS,
    daemon::Daemon,
    fdstore::Manager,
    hygiene::HOLDING,
    kills,
    leftovers::NAMESPACES,
    namespace,
    network::{self, Internet},
    outside::Orders,
    relay, scenario,
};
use crate::{clients, demo};

/// The lab as scenarios see it.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Files of this lab.
    pub(crate) dir: PathBuf,
    /// The cgroup that the daemon guards.
    pub(crate) guarded: PathBuf,
    pub(crate) programs: Programs,
    /// The internet's root certificate, as a file.
    pub(crate) root_pem: PathBuf,
    pub(crate) internet: Internet,
    /// The running daemon, if any.
    pub(crate) daemon: Option<Daemon>,
    /// Restarts under the hammer.
    pub(crate) restarts: usize,
    /// Whom the daemon tells how it is.
    pub(crate) manager: Option<Manager>,
    /// The dashboard's port, on the machine's loopback and on the lab's.
    pub(crate) dashboard_port: u16,
}

/// Does what the orders say; the exit code says whether all was as expected.
///
/// # Errors
/// When the lab cannot be built or the job cannot be done.
pub(crate) fn run(orders: &str) -> anyhow::Result<ExitCode> {
    let orders: Orders = serde_json::from_str(orders).context("orders")?;
    namespace::die_with(orders.outer)?;
    // In the lab's cgroup first, so that everything started from here dies with it.
    fs::write(orders.host.join("cgroup.procs"), "0").context("enter the lab's cgroup")?;
    namespace::leave_host()?;
    let [first, _] = world::NAME_SERVERS;
    namespace::dress(&orders.dir, &first.to_string())?;
    let internet = network::build(orders.dir.join("internet.sock"))?;
    let own = [namespace::inode("/proc/self/ns/net")?, namespace::inode("/proc/self/ns/mnt")?];
    let inodes: String = own.iter().chain([&internet.namespace]).map(|inode| format!("{inode}\n")).collect();
    fs::write(orders.dir.join(NAMESPACES), inodes)?;
    let root_pem = orders.dir.join("fake-root.pem");
    fs::write(&root_pem, &internet.root_pem)?;

    // One thread: children die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all_well = runtime.block_on(async {
        let outer = inherited_listener()?;
        let dashboard_port = outer.local_addr()?.port();
        let _relay = AbortOnDrop(tokio::spawn(relay::run(outer)));
        let mut lab = Lab {
            dir: orders.dir,
            guarded: orders.guarded,
            programs: orders.programs,
            root_pem,
            internet,
            daemon: None,
            manager: None,
            restarts: RESTARTS,
            dashboard_port,
        };
        let done = attend(&mut lab, &orders.job).await;
        if let Some(daemon) = lab.daemon.take() {
            daemon.stop().await.context("stop the daemon")?;
        }
        done
    })?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn attend(lab: &mut Lab, job: &Job) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work(lab, job) => done,
        _ = interrupt.recv() => Ok(waiting_is_over(job)),
        _ = terminate.recv() => Ok(waiting_is_over(job)),
    }
}

async fn work(lab: &mut Lab, job: &Job) -> anyhow::Result<bool> {
    match job {
        Job::Demo { once, json } => demo::inside(lab, *once, *json).await,
        Job::Suite { filter, restarts } => {
            lab.restarts = *restarts;
            scenario::run_suite(lab, filter.as_deref()).await
        }
        Job::Clients(orders) => clients::inside::run(lab, orders).await,
        Job::Kills(options) => kills::run(lab, options).await,
        Job::Bare => scenario::run_bare(lab).await,
        Job::Hold { daemon } => hold(lab, *daemon).await,
    }
}

/// Stands until it is ended.
async fn hold(lab: &mut Lab, daemon: bool) -> anyhow::Result<bool> {
    if daemon {
        lab.write_settings()?;
        lab.start_daemon().await?;
    }
    let name = lab.dir.file_name().unwrap_or_default().to_string_lossy();
    println!("{HOLDING}{name}");
    std::future::pending().await
}

/// Ctrl-C is how a person ends the demo; anything else it cuts short has failed.
fn waiting_is_over(job: &Job) -> bool {
    matches!(job, Job::Demo { once: false, .. })
}

fn inherited_listener() -> anyhow::Result<tokio::net::TcpListener> {
    let fd: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener).context("standard input is not the relay's socket")
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
