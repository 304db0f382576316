//! The wires: the host's side of a veth pair, and the internet's side with every public address.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use anyhow::Context as _;
use fake_internet::{FakeInternet, Journal, Placement, world};
use tokio::sync::oneshot;

use super::namespace;

const HOST: &str = "10.99.0.1";
const HOST6: &str = "fd99::1";
const WORLD: &str = "10.99.0.2";
const WORLD6: &str = "fd99::2";

/// The internet in its own network namespace, on its own thread. Dropping stops it, and with the
/// thread goes the namespace.
#[derive(Debug)]
pub(crate) struct Internet {
    pub(crate) journal: Arc<Journal>,
    pub(crate) root_pem: String,
    /// Inode of its network namespace.
    pub(crate) namespace: u64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Started {
    journal: Arc<Journal>,
    root_pem: String,
    namespace: u64,
}

/// Makes both sides of the wire and starts the internet behind it. The calling process must be in its
/// own network namespace.
///
/// # Errors
/// Whatever `ip` or a socket says.
pub(crate) fn build(snapshots: PathBuf) -> anyhow::Result<Internet> {
    ip("link set lo up\n")?;
    let (tell, hear) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("internet".to_owned())
        .spawn(move || run(snapshots, &tell, stopped))
        .context("start the internet's thread")?;
    let started = hear.recv().context("the internet's thread ended early")??;
    ip(&format!(
        "link set gate0 up\n\
         addr add {HOST}/30 dev gate0\n\
         addr add {HOST6}/64 dev gate0 nodad\n\
         route add default via {WORLD}\n\
         route add ::/0 via {WORLD6}\n"
    ))?;
    let Started { journal, root_pem, namespace } = started;
    Ok(Internet { journal, root_pem, namespace, stop: Some(stop), thread: Some(thread) })
}

fn run(snapshots: PathBuf, tell: &mpsc::Sender<anyhow::Result<Started>>, stopped: oneshot::Receiver<()>) {
    // One thread for all of it: sockets belong to the namespace of the thread that makes them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = runtime.context("runtime").and_then(|runtime| {
        let internet = runtime.block_on(start(snapshots))?;
        Ok((runtime, internet))
    });
    let (runtime, internet) = match started {
        Ok(started) => started,
        Err(error) => {
            // Nobody listens only if the other side died first.
            let _gone = tell.send(Err(error));
            return;
        }
    };
    let told = namespace::inode("/proc/thread-self/ns/net").map(|namespace| Started {
        journal: internet.journal(),
        root_pem: internet.root_pem().to_owned(),
        namespace,
    });
    if tell.send(told).is_ok() {
        // Either way it ends: told to stop, or the other side is gone.
        let _end = runtime.block_on(stopped);
    }
    drop(internet);
}

async fn start(snapshots: PathBuf) -> anyhow::Result<FakeInternet> {
    namespace::leave_network()?;
    let mut batch = format!(
        "link set lo up\n\
         link add world0 type veth peer name gate0 netns {}\n\
         link set world0 up\n\
         addr add {WORLD}/30 dev world0\n\
         addr add {WORLD6}/64 dev world0 nodad\n\
         route add default via {HOST}\n",
        std::process::id()
    );
    for address in world::public_ips() {
        let line = match address {
            std::net::IpAddr::V4(v4) => format!("addr add {v4}/32 dev lo\n"),
            std::net::IpAddr::V6(v6) => format!("addr add {v6}/128 dev lo nodad\n"),
        };
        batch.push_str(&line);
    }
    ip(&batch)?;
    let mut internet = FakeInternet::start(Placement::Public).await?;
    internet.serve_repositories(snapshots.with_file_name("git"));
    internet.serve_snapshots(&snapshots)?;
    Ok(internet)
}

/// Runs lines of `ip` in the network namespace of the calling thread.
fn ip(batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip (package iproute2)")?;
    child.stdin.take().context("ip's input")?.write_all(batch.as_bytes())?;
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip: {}\n{batch}", complaint.trim());
    Ok(())
}

impl Drop for Internet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed already.
            let _panicked = thread.join();
        }
    }
}
