//! The inner process of a benchmark: leaves the machine's namespaces, starts everybody, and measures them in
//! turn. In a round every figure visits all peers, and the order rotates from round to round.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::ExitCode,
    time::Instant,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    cell::{Cell, Load},
    figure::Figure,
    gate, memory,
    options::ProxyOptions,
    outside::{Job, Orders},
    peer::{Kind, Running},
    profile,
    results::{Results, median},
    setting::{INTERCEPTED, RAW, Setting, UNTRUSTED},
    table, target, versions,
};
use crate::lab::namespace;

/// Seconds of a load that are not measured.
const WARM: f64 = 0.4;
/// Calls of fdatasync(2) in one sample.
const SYNCS: usize = 200;

/// Does what the orders say; the exit code says whether it was done, and with `--check` whether targets
/// are met.
///
/// # Errors
/// When the place cannot be built or nothing can be measured.
pub(crate) fn run(orders: &str) -> anyhow::Result<ExitCode> {
    let orders: Orders = serde_json::from_str(orders).context("orders")?;
    namespace::die_with(orders.outer)?;
    // First, so that everything started from here dies with it.
    fs::write(orders.host.join("cgroup.procs"), "0").context("enter the benchmark's cgroup")?;
    let cgroups = orders.host.parent().context("the benchmark's cgroup")?.to_owned();
    let mut setting = Setting::build(orders.dir, cgroups, orders.programs)?;
    setting.cgroup("client")?;
    // One thread: children die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let well = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let done = async {
            let origin = setting.origin().await?;
            let well = match &orders.job {
                Job::Proxy(options) => {
                    setting.pin = options.pin;
                    proxy(&setting, options).await?
                }
                Job::Profile(options) => profile::run(&setting, options).await?,
            };
            origin.stop().await?;
            anyhow::Ok(well)
        };
        tokio::select! {
            well = done => well,
            _ = terminate.recv() => Ok(false),
            _ = interrupt.recv() => Ok(false),
        }
    })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything, from the first start to the table.
async fn proxy(setting: &Setting, options: &ProxyOptions) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut results = Results::new(options, versions::read(setting));
    let kinds = to_be_had(setting, options.peers(), &mut results)?;
    let figures = options.figures();
    let mut peers = begin(setting, &kinds, options, &mut results).await;
    for peer in &peers {
        if let Err(error) = verifies(setting, peer).await {
            results.note(format!("{}: {error:#}", peer.kind.name()));
        }
    }
    for round in 0..options.rounds() {
        results.fdatasync_us.push(fdatasync(&setting.dir)?);
        renew(setting, &mut peers, &mut results).await;
        for figure in figures.iter().copied().filter(|figure| *figure != Figure::Memory) {
            let suited: Vec<&Running> = peers.iter().filter(|peer| figure.suits(peer.kind)).collect();
            for at in 0..suited.len() {
                let Some(peer) = suited.get((at + round) % suited.len()) else { continue };
                let cell = measure(setting, peer, figure, round, options).await;
                say(&cell, options, began);
                results.cells.push(cell);
            }
        }
    }
    for peer in peers {
        peer.stop().await?;
    }
    results.took_seconds = began.elapsed().as_secs_f64();
    let targets = target::judge(&results);
    if options.json {
        println!("{}", table::json(&results, &targets));
    } else {
        let text = table::markdown(&results, &targets);
        println!("{text}");
        if !options.dry {
            table::write(&text)?;
        }
    }
    let measured = results.cells.iter().any(|cell| cell.error.is_none());
    anyhow::ensure!(measured, "nothing could be measured");
    Ok(!options.check || targets.iter().all(|target| !target.is_missed()))
}

/// Those of the wanted that are installed; where the gate knows no durability, it is one peer.
fn to_be_had(setting: &Setting, wanted: Vec<Kind>, results: &mut Results) -> anyhow::Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = Vec::new();
    let durable = gate::knows(Kind::GateBackpressure, setting)?;
    for kind in wanted {
        let absent = match kind {
            Kind::Mitmproxy | Kind::MitmproxyStream if setting.programs.mitmdump.is_none() => {
                Some("mitmproxy")
            }
            Kind::Squid if setting.programs.squid.is_none() => Some("squid"),
            // The same as one of the others.
            Kind::Gate if durable => continue,
            Kind::Direct
            | Kind::Splice
            | Kind::Tls
            | Kind::TlsResume
            | Kind::Gate
            | Kind::GateBackpressure
            | Kind::GateBeforeForward
            | Kind::Mitmproxy
            | Kind::MitmproxyStream
            | Kind::Squid
            | Kind::Hudsucker => None,
        };
        if let Some(absent) = absent {
            results.note(format!("{absent} is left out: it is not to be had here"));
            continue;
        }
        let kind = if kind.durability().is_some() && !durable {
            results.note("this build of the gate has no setting of durability".to_owned());
            Kind::Gate
        } else {
            kind
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Starts everybody; where memory is measured, several times.
async fn begin(
    setting: &Setting,
    kinds: &[Kind],
    options: &ProxyOptions,
    results: &mut Results,
) -> Vec<Running> {
    let began = Instant::now();
    let remembers = options.figures().contains(&Figure::Memory);
    let rounds = if remembers { options.memory_rounds() } else { 1 };
    let mut peers = Vec::new();
    for kind in kinds.iter().copied() {
        for round in 0..rounds {
            let peer = match Running::start(kind, setting).await {
                Ok(peer) => peer,
                Err(error) => {
                    results.note(format!("{} is left out: {error:#}", kind.name()));
                    break;
                }
            };
            if remembers && Figure::Memory.suits(kind) {
                let cell = memory::measure(setting, &peer, round).await;
                let cell = cell.unwrap_or_else(|error| Cell::failed(Figure::Memory, kind, round, &error));
                say(&cell, options, began);
                results.cells.push(cell);
            }
            if round + 1 == rounds || !Figure::Memory.suits(kind) {
                peers.push(peer);
                break;
            }
            if let Err(error) = again(setting, peer).await {
                results.note(format!("{} is left out: {error:#}", kind.name()));
                break;
            }
        }
    }
    peers
}

/// Ends a peer, and has a gate forget everything.
async fn again(setting: &Setting, peer: Running) -> anyhow::Result<()> {
    let kind = peer.kind;
    peer.stop().await?;
    if kind.is_gate() { gate::forget(kind, setting) } else { Ok(()) }
}

/// Gives gates an empty store where theirs has grown large.
async fn renew(setting: &Setting, peers: &mut Vec<Running>, results: &mut Results) {
    let mut kept = Vec::new();
    for peer in peers.drain(..) {
        let kind = peer.kind;
        if !kind.is_gate() || !gate::is_full(kind, setting) {
            kept.push(peer);
            continue;
        }
        let restarted = async {
            again(setting, peer).await?;
            Running::start(kind, setting).await
        };
        match restarted.await {
            Ok(peer) => kept.push(peer),
            Err(error) => results.note(format!("{} does not start again: {error:#}", kind.name())),
        }
    }
    *peers = kept;
}

async fn measure(
    setting: &Setting,
    peer: &Running,
    figure: Figure,
    round: usize,
    options: &ProxyOptions,
) -> Cell {
    let raw = figure == Figure::Passthrough && peer.kind.is_gate();
    let load = Load {
        setting,
        peer,
        name: if raw { RAW } else { INTERCEPTED },
        pinned: setting.pin || figure.is_pinned(),
        warm: WARM,
        seconds: options.seconds(),
    };
    match load.run(&figure.load()).await {
        Ok((report, handshakes)) => figure.cell(peer.kind, round, &report, handshakes),
        Err(error) => Cell::failed(figure, peer.kind, round, &error),
    }
}

/// An origin that nobody may trust must be refused, and the other must not.
async fn verifies(setting: &Setting, peer: &Running) -> anyhow::Result<()> {
    let load = |name| Load { setting, peer, name, pinned: false, warm: 0.0, seconds: 0.0 };
    let probe = ["probe".to_owned()];
    let (report, _) = load(INTERCEPTED).run(&probe).await?;
    let complaint = report.complaint().unwrap_or_default();
    anyhow::ensure!(report.count == 200, "does not answer: {} {complaint}", report.count);
    let (report, _) = load(UNTRUSTED).run(&probe).await?;
    let refused = report.errors > 0 || report.count >= 500;
    anyhow::ensure!(refused, "takes an origin's certificate that nobody may trust: {}", report.count);
    Ok(())
}

/// Median of fdatasync(2) after a write of 4 KiB on the disk where the stores are, in microseconds.
fn fdatasync(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("fdatasync");
    let mut file = File::create(&path).context("fdatasync")?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    Ok(median(&times).unwrap_or_default())
}

/// What a person sees while it runs.
fn say(cell: &Cell, options: &ProxyOptions, began: Instant) {
    let values =
        cell.values.iter().map(|(metric, value)| format!("{value:.*} {}", metric.digits(), metric.title()));
    let said = match &cell.error {
        None => values.collect::<Vec<_>>().join(", "),
        Some(error) => format!("FAILED: {error}"),
    };
    eprintln!(
        "{:>4.0} s  round {}/{}  {:<11} {:<20} {said}",
        began.elapsed().as_secs_f64(),
        cell.round + 1,
        options.rounds(),
        cell.figure.name(),
        cell.peer.name(),
    );
}
