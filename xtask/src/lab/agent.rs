//! Commands as an agent would run them, inside the guarded cgroup, and as anybody would, outside.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::inside::Lab;

/// A client that takes longer has hung: the slowest case waits for the gate's sniff deadline, 5 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// Variables that would make a client cooperate.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Process id that this process started; inside it is agentctl's, which becomes the command.
    pub(crate) pid: u32,
    /// Exit code; -1 for a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// Everything it printed.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The command without variables that would make it cooperate, and with its output for us.
pub(crate) fn unmodified(mut command: Command) -> Command {
    for name in PROXIES {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Lab {
    /// The command in a fresh session of the guarded cgroup.
    pub(crate) fn inside(&self, command: &[String]) -> Command {
        let mut agentctl = self.agentctl();
        agentctl.args(["run", "--quiet", "--"]).args(command);
        unmodified(agentctl)
    }

    /// The command outside, trusting the internet's own root.
    pub(crate) fn outside(&self, command: &[String]) -> anyhow::Result<Command> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut made = Command::new(program);
        made.args(arguments).env("CURL_CA_BUNDLE", &self.root_pem).env("SSL_CERT_FILE", &self.root_pem);
        Ok(unmodified(made))
    }

    /// Starts a process inside that does one HTTP request for each line it is given.
    pub(crate) fn start_agent(&self) -> anyhow::Result<LongAgent> {
        let script = ["python3", "-u", "-c", LONG_AGENT].map(str::to_owned);
        let mut child = self.inside(&script).stdin(Stdio::piped()).spawn().context("agentctl run")?;
        let questions = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(LongAgent { child, questions, answers })
    }
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("start {:?}", command.as_std().get_program()))?;
    let pid = child.id().unwrap_or_default();
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{:?} hangs", command.as_std()))??;
    Ok(Ended {
        pid,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    })
}

/// A process that outlives the daemon.
#[derive(Debug)]
pub(crate) struct LongAgent {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl LongAgent {
    /// Asks it to fetch a URL. The answer is the status, or the name of the error.
    pub(crate) async fn fetch(&mut self, url: &str) -> anyhow::Result<String> {
        self.questions.write_all(format!("{url}\n").as_bytes()).await.context("the agent ended")?;
        let answer = timeout(PATIENCE, self.answers.next_line()).await.context("the agent hangs")??;
        answer.context("the agent ended")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Closes its input and waits for its end.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        drop(self.questions);
        let status = timeout(PATIENCE, self.child.wait()).await.context("the agent hangs")??;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

/// A fresh connection for every line, as most tools do.
const LONG_AGENT: &str = "
import sys, urllib.request, urllib.error
for line in sys.stdin:
    try:
        with urllib.request.urlopen(line.strip(), timeout=20) as response:
            response.read()
            print(response.status)
    except urllib.error.HTTPError as error:
        print(error.code)
    except urllib.error.URLError as error:
        print(type(error.reason).__name__)
    except Exception as error:
        print(type(error).__name__)
";
