//! The part in namespaces of its own: builds the place, starts the daemon, runs the attempts one after
//! another and judges each by what was seen.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    process::{Signal, getppid, set_parent_process_death_signal},
};
use tokio::process::Command;

use super::{
    SelftestError, accomplice,
    daemon::{Daemon, Records},
    evidence::Evidence,
    judge::{self, Ended, Run},
    orders::{FENCE, Orders, TOKEN_PREFIX, forbidden_v4, forbidden_v6},
    outer::Task,
    place,
    report::{Event, Identity, Row, Summary},
    step,
    suite::{self, Attempt, Inherits},
    sys::{self, process},
    world,
};
use crate::config::Paths;

/// An attempt that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the wire may take to show what was put into it: it is in memory, but the machine may be busy.
const WIRE: Duration = Duration::from_secs(20);
/// How long the daemon may take to record what it certainly records.
const LOG: Duration = Duration::from_secs(20);
/// Requests by which the gate may show that it is open: on a busy machine one may time out.
const REQUESTS: usize = 3;
/// How long a record is waited for after an attempt; one that comes later counts at the end.
const RECORD: Duration = Duration::from_millis(250);

/// Does the task and tells of it on standard output, one JSON object a line.
#[must_use]
pub fn run(task: &str) -> ExitCode {
    let told = prepare(task).and_then(|inner| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(step("a runtime"))?;
        runtime.block_on(inner.work())
    });
    let event = match told {
        Ok(summary) => Event::Done(summary),
        Err(error) => Event::Failed { message: error.to_string() },
    };
    let failed = matches!(event, Event::Failed { .. });
    if tell(&event).is_err() || failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tell(event: &Event) -> Result<(), SelftestError> {
    let mut line = serde_json::to_vec(event).map_err(|error| step("an event")(error.into()))?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).map_err(step("standard output"))
}

/// Everything that stands while attempts run.
#[derive(Debug)]
struct Inner {
    task: Task,
    evidence: Evidence,
    world: world::World,
    programs: Programs,
    /// Whether this kernel runs BPF LSM programs.
    lsm: bool,
    /// Number of the next run; every run has its own.
    next: u16,
    /// Number of the next fence.
    fence: u64,
    /// Random, so that nobody's leftovers bear this suite's tokens.
    salt: u64,
}

/// The programs where every user can execute them.
#[derive(Clone, Debug)]
struct Programs {
    agentctl: PathBuf,
    agentgated: PathBuf,
}

/// An attempt that has run, and what is needed to judge it again at the end.
struct Tried {
    attempt: Attempt,
    row: Row,
    control: Half,
    guarded: Half,
}

/// One of the two runs.
struct Half {
    number: u16,
    token: String,
    /// How its session's name begins.
    session: String,
    /// The process that did it.
    pid: u32,
    ended: Ended,
}

/// Leaves the machine's namespaces. Before any thread exists: threads made earlier would stay behind.
fn prepare(task: &str) -> Result<Inner, SelftestError> {
    let task: Task = serde_json::from_str(task).map_err(|error| step("the task")(error.into()))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| step("PR_SET_PDEATHSIG")(e.into()))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(task.outer) {
        return Err(SelftestError::CutShort("whoever started it is gone".to_owned()));
    }
    let outside = place::outside(&task.cgroup);
    fs::write(outside.join("cgroup.procs"), "0").map_err(step("enter the cgroup outside"))?;
    process::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET).map_err(step("namespaces"))?;
    let programs = dress(&task).map_err(step("mounts"))?;
    let evidence = Evidence::default();
    let world = world::build(&evidence)?;
    fs::write(task.directory.join("root.pem"), &world.root_pem).map_err(step("the origin's root"))?;
    let mut salt = [0; 8];
    aws_lc_rs::rand::fill(&mut salt).map_err(|error| step("random bytes")(io::Error::other(error)))?;
    Ok(Inner {
        task,
        evidence,
        world,
        programs,
        lsm: has_lsm(),
        next: 1,
        fence: 0,
        salt: u64::from_be_bytes(salt),
    })
}

/// Whether BPF is among the security modules in force. Where securityfs is not mounted the daemon has no
/// such layer either.
fn has_lsm() -> bool {
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    list.trim().split(',').any(|module| module == "bpf")
}

/// Private mounts: a file system for this run's files, a bpffs, and the programs where every user can
/// execute them.
fn dress(task: &Task) -> io::Result<Programs> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let directory = &task.directory;
    mount("tmpfs", directory, "tmpfs", MountFlags::empty(), c"size=256m,mode=0755")?;
    let bpf = directory.join("bpf");
    fs::create_dir(&bpf)?;
    mount("bpffs", &bpf, "bpf", MountFlags::empty(), None)?;
    let programs = directory.join("bin");
    fs::create_dir(&programs)?;
    let place = |program: &Path, name: &str| {
        let at = programs.join(name);
        fs::File::create(&at)?;
        mount_bind(program, &at)?;
        io::Result::Ok(at)
    };
    let placed = Programs {
        agentctl: place(&task.agentctl, "agentctl")?,
        agentgated: place(&task.agentgated, "agentgated")?,
    };
    // Without /run/systemd the daemon makes its own cgroups, and asks nobody outside for one.
    if Path::new("/run/systemd").is_dir() {
        mount("tmpfs", "/run/systemd", "tmpfs", MountFlags::empty(), None)?;
    }
    Ok(placed)
}

impl Inner {
    async fn work(mut self) -> Result<Summary, SelftestError> {
        world::serve_host(&self.evidence).await.map_err(step("the host's sinks"))?;
        accomplice::serve(&self.task.directory.join("accomplice.sock"), &self.world.namespace)?;
        // Any group may use ping sockets here, as on most hosts; the namespace's own setting.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").map_err(step("ping_group_range"))?;
        self.look()?;
        let mut daemon = match self.task.unguarded {
            true => None,
            false => Some(Daemon::start(&self.programs.agentgated, &self.task.cgroup, &self.task.directory)?),
        };
        let records = match &daemon {
            Some(daemon) => Records::follow(&Paths::below(daemon.root()).control_socket)?,
            None => Records::default(),
        };
        if let Some(daemon) = &mut daemon {
            self.gate_is_open(&records).await.map_err(|error| {
                SelftestError::Inner(format!("{error}; the daemon's log ends:\n{}", daemon.tail()))
            })?;
        }
        let attempts = suite::matching(self.task.filter.as_deref());
        tell(&Event::Ready { attempts: attempts.iter().map(|a| a.identities().len()).sum() })?;
        let mut all = Vec::new();
        for attempt in attempts {
            for identity in attempt.identities() {
                tell(&Event::Begun { attempt: attempt.name.to_owned(), identity })?;
                let tried = self.attempt(attempt, identity, &records).await?;
                tell(&Event::Row(Box::new(tried.row.clone())))?;
                all.push(tried);
                if let Some(daemon) = &mut daemon {
                    daemon.check()?;
                }
            }
        }
        self.look()?;
        if let Some(daemon) = &mut daemon {
            self.gate_is_open(&records).await.map_err(|error| {
                SelftestError::Inner(format!("{error}; the daemon's log ends:\n{}", daemon.tail()))
            })?;
        }
        self.judge_again(&mut all, &records)?;
        Ok(Summary::of(all.iter().map(|tried| &tried.row)))
    }

    /// What came late counts too.
    fn judge_again(&self, all: &mut [Tried], records: &Records) -> Result<(), SelftestError> {
        for tried in all {
            let row = self.row(tried, records);
            if row != tried.row {
                tell(&Event::Row(Box::new(row.clone())))?;
                tried.row = row;
            }
        }
        Ok(())
    }

    /// Sees to it that the wire's detector sees: what was put in before this has then been seen.
    fn look(&mut self) -> Result<(), SelftestError> {
        self.fence += 1;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(step("a fence"))?;
        let to = SocketAddr::from((FENCE, 9));
        socket.send_to(&self.fence.to_be_bytes(), to).map_err(step("a fence"))?;
        if self.evidence.wait(self.fence, WIRE) {
            Ok(())
        } else {
            Err(SelftestError::Blind("the capture on the wire does not see a packet".to_owned()))
        }
    }

    /// A gate that refuses everything would pass every attempt: an allowed request has to get through, and
    /// into the log. The log is written in order, so what happened before is then recorded too.
    async fn gate_is_open(&mut self, records: &Records) -> Result<(), SelftestError> {
        for identity in [Identity::Root, Identity::User] {
            let mut left = REQUESTS;
            let half = loop {
                let half = self.half(&super::attempts::ALLOWED_REQUEST, identity, true, records).await?;
                left = left.saturating_sub(1);
                match &half.ended {
                    Ended::Reported(report) if report.reached.is_some() => break half,
                    _ if left > 0 => {}
                    ended => {
                        let told = format!("a request that policy allows does not get through: {ended:?}");
                        return Err(SelftestError::Blind(told));
                    }
                }
            };
            if !records.wait(half.number, &half.session, half.pid, LOG) {
                return Err(SelftestError::Blind("a request that is allowed is not recorded".to_owned()));
            }
        }
        Ok(())
    }

    async fn attempt(
        &mut self,
        attempt: Attempt,
        identity: Identity,
        records: &Records,
    ) -> Result<Tried, SelftestError> {
        let began = Instant::now();
        let control = self.half(&attempt, identity, false, records).await?;
        let guarded = self.half(&attempt, identity, true, records).await?;
        let row = Row {
            attempt: attempt.name.to_owned(),
            family: attempt.family,
            identity,
            verdict: super::report::Verdict::Untestable { because: String::new() },
            saw: Vec::new(),
            records: Vec::new(),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let mut tried = Tried { attempt, row, control, guarded };
        tried.row = self.row(&tried, records);
        Ok(tried)
    }

    fn row(&self, tried: &Tried, records: &Records) -> Row {
        let seen = |half: &Half| Run {
            ended: half.ended.clone(),
            sightings: self.evidence.of(half.number, &half.token),
            records: records.of(half.number, &half.session, half.pid),
        };
        let (control, guarded) = (seen(&tried.control), seen(&tried.guarded));
        let host = judge::Host { launched: !self.task.bare && !self.task.unguarded, lsm: self.lsm };
        let verdict = judge::verdict(&tried.attempt, &control, &guarded, host);
        let saw = match &guarded.ended {
            Ended::Reported(report) => {
                let stop = report.stop.as_ref().map(super::tried::describe);
                report.saw.iter().cloned().chain(stop).collect()
            }
            Ended::NotStarted(said) | Ended::Broken(said) => vec![said.clone()],
        };
        let told = |record: &crate::model::Record| {
            let rule = record.verdict.as_ref().map_or("", |verdict| verdict.rule.as_str());
            let flags: Vec<&str> = record.flags.iter().map(|flag| flag.code.as_str()).collect();
            format!("{} {rule} {}", record.kind.as_str(), flags.join(",")).trim().to_owned()
        };
        let mut recorded: Vec<String> = guarded.records.iter().map(told).collect();
        recorded.dedup();
        Row { verdict, saw, records: recorded, ..tried.row.clone() }
    }

    /// One run of an attempt, outside or inside.
    async fn half(
        &mut self,
        attempt: &Attempt,
        identity: Identity,
        guarded: bool,
        records: &Records,
    ) -> Result<Half, SelftestError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| SelftestError::Blind("too many runs".to_owned()))?;
        let guarded = guarded && !self.task.unguarded;
        // Odd and even numbers and a salt: no two runs of any suite share a token.
        let mark = self.salt.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let token = format!("{TOKEN_PREFIX}{mark:016x}");
        let join = (guarded && self.task.bare)
            .then(|| place::agents(&self.task.cgroup).join(format!("attempt-{number}")));
        if let Some(directory) = &join {
            fs::create_dir(directory).map_err(step(directory.display().to_string()))?;
        }
        let orders = self.orders(attempt, identity, guarded, number, &token, join.clone());
        self.evidence.begin(number);
        let (pid, ended) = self.start(attempt, &orders).await?;
        let session = match &join {
            Some(_) => format!("attempt-{number}@"),
            None => format!("run-{pid}-"),
        };
        self.undo(attempt).await;
        self.look()?;
        if guarded {
            // Many attempts leave none.
            let _found = records.wait(number, &session, pid, RECORD);
        }
        Ok(Half { number, token, session, pid, ended })
    }

    fn orders(
        &self,
        attempt: &Attempt,
        identity: Identity,
        guarded: bool,
        number: u16,
        token: &str,
        join: Option<PathBuf>,
    ) -> Orders {
        let paths = Paths::below(&self.task.directory.join("root"));
        Orders {
            attempt: attempt.name.to_owned(),
            token: token.to_owned(),
            identity,
            guarded,
            join,
            run: number,
            v4: forbidden_v4(number),
            v6: forbidden_v6(number),
            accomplice: self.task.directory.join("accomplice.sock"),
            accomplice_pid: std::process::id(),
            world: self.world.namespace.clone(),
            outside: place::outside(&self.task.cgroup),
            control_socket: paths.control_socket,
            enrol_socket: paths.enrol_socket,
            program: self.programs.agentctl.clone(),
        }
    }

    async fn start(&self, attempt: &Attempt, orders: &Orders) -> Result<(u32, Ended), SelftestError> {
        let argument = serde_json::to_string(orders).map_err(|error| step("orders")(error.into()))?;
        let inherited = inherited(attempt.inherits, orders).map_err(step("a socket to inherit"))?;
        let mut command = Command::new(&self.programs.agentctl);
        let launched = orders.guarded && orders.join.is_none();
        if launched {
            command.arg("--root").arg(self.task.directory.join("root"));
            command.args(["run", "--quiet", "--"]).arg(&self.programs.agentctl);
        }
        command.args(["selftest-attempt", &argument]);
        // Who enters a cgroup without the daemon's help has to begin as root.
        if orders.identity == Identity::User && orders.join.is_none() {
            command.uid(process::NOBODY).gid(process::NOBODY);
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let at = if attempt.inherits == Inherits::Input { 0 } else { super::attempts::INHERITED };
        process::prepare(&mut command, inherited.as_ref().map(|fd| (fd.as_raw_fd(), at)));
        let child = command.spawn().map_err(step("start an attempt"))?;
        let pid = child.id().unwrap_or_default();
        let ended = match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
            Ok(output) => read(&output.map_err(step("wait for an attempt"))?, launched),
            Err(_) => Ended::Broken(format!("it does not end within {PATIENCE:?}")),
        };
        Ok((pid, ended))
    }

    /// Takes back what a privileged attempt may have left in the host's namespace.
    async fn undo(&self, attempt: &Attempt) {
        for line in attempt.undo {
            let mut words = line.split(' ');
            let Some(program) = words.next() else { continue };
            // It fails where the attempt got nowhere.
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _done = command.status().await;
        }
    }
}

fn inherited(what: Inherits, orders: &Orders) -> io::Result<Option<OwnedFd>> {
    let kind = match what {
        Inherits::Nothing => return Ok(None),
        Inherits::Tcp => libc::SOCK_STREAM,
        Inherits::Udp | Inherits::Input => libc::SOCK_DGRAM,
    };
    let socket = sys::socket(libc::AF_INET, kind, 0)?;
    if kind == libc::SOCK_DGRAM {
        sys::connect(&socket, &sys::sockaddr(SocketAddr::from((orders.v4, 9999))))?;
    }
    Ok(Some(socket))
}

fn read(output: &std::process::Output, launched: bool) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if let Some(report) =
        output.stdout.split(|byte| *byte == b'\n').find_map(|l| serde_json::from_slice(l).ok())
    {
        return Ended::Reported(report);
    }
    // As `agentctl run` has it: 125 for everything of its own.
    if launched && output.status.code() == Some(125) {
        return Ended::NotStarted(said);
    }
    match output.status.signal() {
        Some(libc::SIGSYS) => Ended::Broken("killed by seccomp (SIGSYS)".to_owned()),
        Some(signal) => Ended::Broken(format!("ended by signal {signal}")),
        None => Ended::Broken(format!("{}: {said}", output.status)),
    }
}
