//! Starts a runtime, with a deadline, and takes down what it says.

use std::{
    fs,
    io::{self, Read},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::probes::{ABSENT, Probe};

/// For a runtime from its start to its end.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// What is kept of each of its outputs, in bytes.
const KEPT: u64 = 64 << 10;

/// How a runtime ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has not got that library.
    Absent,
    /// By itself.
    Ended { code: Option<i32>, stdout: String, stderr: String, program: PathBuf },
    /// By us, at the deadline.
    TooLong,
    /// It could not be started or followed.
    Failed(String),
}

/// Where `program` is on the path.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where programs are is no setting of ours")]
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).map(|directory| directory.join(program));
    let executable = |place: &PathBuf| {
        place.is_absolute()
            && fs::metadata(place)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let mut found = places.filter(executable);
    found.next()
}

/// Runs `probe` by `program` to its end.
pub(super) fn run(probe: &Probe, program: &Path) -> Outcome {
    let mut command = Command::new(program);
    command.args(probe.arguments).envs(probe.variables.iter().copied());
    // Where no project has settings of its own.
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn().and_then(follow) {
        Ok(Some((Some(ABSENT), ..))) => Outcome::Absent,
        Ok(Some((code, stdout, stderr))) => {
            Outcome::Ended { code, stdout, stderr, program: program.to_owned() }
        }
        Ok(None) => Outcome::TooLong,
        Err(error) => Outcome::Failed(format!("{}: {error}", program.display())),
    }
}

type Said = (Option<i32>, String, String);

/// Waits for `child` and takes down what it says; `None` where it had to be ended.
fn follow(mut child: Child) -> io::Result<Option<Said>> {
    let outputs = [child.stdout.take().map(reading), child.stderr.take().map(reading)];
    let in_time = wait(&child);
    // All of its group, also what it left behind. It is not reaped yet, so the number is still its own.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process_group(group, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        return Err(error.into());
    }
    let status = child.wait()?;
    let [stdout, stderr] = outputs
        .map(|output| output.and_then(|output| output.join().ok()).unwrap_or_default())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(in_time?.then_some((status.code(), stdout, stderr)))
}

/// Whether it ended in time.
fn wait(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let began = Instant::now();
    loop {
        let left = DEADLINE.saturating_sub(began.elapsed());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads to the end, and keeps the beginning.
fn reading(mut output: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let read = output.by_ref().take(KEPT).read_to_end(&mut kept);
        if read.is_ok() {
            // So that it does not wait for room; what it says in the end decides nothing then.
            let _gone = io::copy(&mut output, &mut io::sink());
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::trust::probes::Reading;

    fn sh(script: &'static str) -> Outcome {
        let arguments: &'static [&'static str] = Box::leak(Box::new(["-c", script]));
        let probe = Probe {
            name: "sh",
            programs: &["sh"],
            arguments,
            variables: &[("MINE", "1")],
            reading: Reading::Prints,
            advice: "",
        };
        run(&probe, &find("sh").unwrap())
    }

    #[test]
    fn what_it_says_is_taken_down_also_where_children_stay() {
        let Outcome::Ended { code, stdout, stderr, .. } =
            sh("sleep 1000 & echo out $MINE; echo err >&2; pwd; exit 7")
        else {
            panic!("it ended");
        };
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(7), "out 1\n/\n", "err\n"));
        let much = sh("head -c 1000000 /dev/zero | tr '\\0' x; echo; exit 0");
        assert!(matches!(much, Outcome::Ended { code: Some(0), stdout, .. } if stdout.len() == 65536));
        assert!(matches!(sh("exit 3"), Outcome::Absent));
        assert!(find("agentgate-no-such-program").is_none());
    }
}
