//! One boot: qemu, its serial console, and a deadline.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{kernel::Kernel, report::Report};

/// The modules of Debian's kernels, with the one that this is about: BPF. Without the list a kernel
/// starts those that it was configured with.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 systemd.show_status=false \
     lsm=landlock,lockdown,yama,integrity,apparmor,bpf";
/// MiB: the file system lives in it.
const MEMORY: &str = "3072";

/// Boots, and reads what is told until the machine goes off. What it printed goes to `log`.
///
/// # Errors
/// When qemu cannot be started or the log not be written.
pub(super) fn run(kernel: &Kernel, image: &Path, log: &Path, deadline: Duration) -> anyhow::Result<Report> {
    let began = Instant::now();
    println!("Linux {}: boots", kernel.version);
    let until = began + deadline;
    // It dies with this process: the signal that setpriv(1) asks for survives its exec.
    let mut qemu = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(image)
        .args(["-append", PARAMETERS])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu-system-x86_64 through setpriv")?;
    let console = qemu.stdout.take().context("the console")?;
    let mut log = fs::File::create(log).with_context(|| log.display().to_string())?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // A console may carry any bytes.
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut report = Report::default();
    let why = loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                log.write_all(&line)?;
                log.write_all(b"\n")?;
                if let Some(shown) = report.take(&String::from_utf8_lossy(&line)) {
                    println!("{} {:4}s {shown}", kernel.version, began.elapsed().as_secs());
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                qemu.kill().context("end qemu")?;
                break Some(format!("not done after {deadline:?}: ended"));
            }
        }
    };
    drop(lines);
    let status = qemu.wait().context("wait for qemu")?;
    // A panic in it has been printed already.
    let _panicked = reader.join();
    let why = why.or_else(|| (!status.success()).then(|| format!("qemu: {status}")));
    report.close(why);
    Ok(report)
}
