//! The daemon killed with -9 again and again under load, at random moments, also while it starts; after each
//! start the log is laid beside what origins saw. Nothing may have left that is not on record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

mod books;
mod load;

use self::{
    books::{Arrived, Books},
    load::Load,
};
use super::inside::Lab;

/// Of the step `kills`.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Of the step kills")]
#[group(id = "kills-options")]
pub(crate) struct Options {
    /// How often the daemon is killed
    #[arg(long, default_value_t = 200)]
    pub(crate) kills: u32,
    /// Gives the same moments again; others each time where none is named
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

impl Options {
    /// As arguments of a command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let seed = self.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]);
        ["--kills".to_owned(), self.kills.to_string()].into_iter().chain(seed).collect()
    }
}

/// Requests that arrive before the signal, at most.
const ARRIVALS: u64 = 30;
/// How long it takes after the last of them, in microseconds, at most: about as long as an exchange.
const LATER: u64 = 20_000;
/// The same after a start that is killed before it is ready.
const STARTING: u64 = 400_000;
/// One in so many restarts is without the sockets of the daemon before, and one in so many is killed while it
/// starts.
const WITHOUT_SOCKETS: u64 = 8;
const IN_THE_START: u64 = 6;
/// Under load requests arrive many times a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Random numbers that a seed gives again (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

/// Microseconds since 1970, as records have them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Kills, and looks; true when all was on record.
///
/// # Errors
/// When something cannot be done at all.
pub(crate) async fn run(lab: &mut Lab, options: &Options) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| u64::try_from(now()).unwrap_or_default());
    println!("seed {seed}");
    let mut random = Random(seed);
    lab.write_settings()?;
    lab.start_daemon().await?;
    let mut load = Load::start(lab, seed).await?;
    let mut books = Books::default();
    let began = Instant::now();
    let mut in_the_start = 0;
    for round in 1..=options.kills {
        let killed = kill_under_load(lab, &mut random, &mut in_the_start).await;
        let killed = killed.with_context(|| format!("kill {round}"))?;
        // What is looked at takes part in what is measured, so there is to be little more of it meanwhile.
        load.rest(true).await?;
        look(lab, &mut books, killed).await.with_context(|| format!("after kill {round}"))?;
        load.rest(false).await?;
        if !books.differs.is_empty() {
            println!("after kill {round}:");
            break;
        }
        if round % 20 == 0 {
            println!("{round} kills in {:.1} s: {books}", began.elapsed().as_secs_f64());
        }
    }
    let asked = load.end().await?;
    // What the last daemon did, and the log as a whole.
    look(lab, &mut books, i64::MIN).await?;
    whole(lab, &mut books).await?;
    println!("asked and answered: {asked}");
    println!("{} kills, {in_the_start} of them in a start: {books}", options.kills);
    books.expect_substance(options.kills);
    for difference in &books.differs {
        println!("       {difference}");
    }
    if !books.differs.is_empty()
        && let Some(daemon) = &lab.daemon
    {
        println!("the daemon's log ends:\n{}", daemon.log_tail());
    }
    Ok(books.differs.is_empty())
}

/// Lets requests arrive, kills the daemon and starts it again; gives a time before the kill, when all that had
/// begun was begun by a daemon that is dead.
async fn kill_under_load(lab: &mut Lab, random: &mut Random, in_the_start: &mut u32) -> anyhow::Result<i64> {
    let journal = lab.internet.journal.clone();
    let wanted = journal.read(|s| s.requests.len()) + usize::try_from(random.below(ARRIVALS))?;
    let came = journal.wait_for(PATIENCE, |s| s.requests.len() >= wanted).await;
    anyhow::ensure!(came, "no requests arrive any more");
    // The moment is what is to be random, so this waits for nothing.
    tokio::time::sleep(Duration::from_micros(random.below(LATER))).await;
    let mut killed = now();
    if random.below(IN_THE_START) == 0 {
        lab.take_daemon()?.kill().await?;
        *in_the_start += 1;
        let after = Duration::from_micros(random.below(STARTING));
        if lab.start_and_kill(after).await? {
            killed = now();
        }
        lab.start_with_sockets().await?;
    } else if random.below(WITHOUT_SOCKETS) == 0 {
        lab.take_daemon()?.kill().await?;
        lab.start_daemon().await?;
    } else {
        lab.restart_daemon(Signal::KILL).await?;
    }
    Ok(killed)
}

/// Lays what arrived beside what is on record.
async fn look(lab: &Lab, books: &mut Books, killed: i64) -> anyhow::Result<()> {
    // In this order: what had arrived was on record before.
    let arrived = books.arrivals(&lab.internet.journal);
    let found = lab.all_records(books.after()).await?;
    books.enter(found, killed);
    for Arrived { target, method, body } in arrived {
        let candidates = books.candidates(&target, &method);
        let Some(body) = body else { continue };
        let mut same = None;
        for id in candidates {
            if lab.request_body(id).await?.as_ref() == Some(&body) {
                same = Some(id);
                break;
            }
        }
        books.compared(&target, body.len(), same);
    }
    verified(lab, books, &[]).await
}

/// Has the log's chain looked at: that of the running daemon, or of a file.
async fn verified(lab: &Lab, books: &mut Books, file: &[&str]) -> anyhow::Result<()> {
    let mut command = lab.agentctl();
    command.args(["audit", "verify"]).args(file).stdin(std::process::Stdio::null());
    let output = command.output().await.context("agentctl")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        books.differs.push(format!("the chain does not hold ({}): {}", output.status, said.join(" ")));
    }
    Ok(())
}

/// The log as a whole, once the load is over: the kernel's numbers, and the log's own.
async fn whole(lab: &mut Lab, books: &mut Books) -> anyhow::Result<()> {
    if let Err(error) = lab.steer(&["audit", "reconcile", "--recount"]).await {
        books.differs.push(format!("{error:#}"));
    }
    // The same of the file alone, as anybody could who has a copy and the public key.
    lab.take_daemon()?.stop().await?;
    let [store, key] = ["audit.redb", "audit.pub"].map(|name| lab.state().join(name).display().to_string());
    verified(lab, books, &[&store, "--key", &key]).await
}
