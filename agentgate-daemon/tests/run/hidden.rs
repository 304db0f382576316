//! What a command under guard does not see, and what works for it all the same.

use std::collections::BTreeMap;

use super::*;

/// Runs `words` by way of `host.py`, which see.
async fn on_a_host(daemon: &Daemon, uid: u32, flags: &[&str], words: &[&str]) -> Output {
    let agentctl = daemon.agentctl.to_str().unwrap();
    host(daemon, uid, &[&[agentctl], flags].concat(), words).await
}

async fn host(daemon: &Daemon, uid: u32, how: &[&str], words: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "python3"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/host.py"));
    command.arg(uid.to_string()).arg(daemon.dir.path()).args(how).arg("--").args(words);
    command.stdin(Stdio::null());
    output(command).await
}

/// Connects to every place, before and after sockets were made anew: name to outcome.
const CONNECT: &str = "
import errno, json, os, socket
def outcomes():
    seen = {}
    for name, path in json.loads(os.environ['PLACES']).items():
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
            seen[name] = 'open'
        except OSError as e:
            seen[name] = errno.errorcode[e.errno]
    return seen
before = outcomes()
print('ready', flush=True)
input()
after = outcomes()
print(json.dumps([before, after]))
";

type Outcomes = BTreeMap<String, String>;

async fn outcomes(daemon: &Daemon, uid: u32, flags: Option<&[&str]>) -> (Outcomes, Outcomes) {
    let words = ["python3", "-c", CONNECT];
    let output = match flags {
        Some(flags) => on_a_host(daemon, uid, flags, &words).await,
        None => host(daemon, uid, &["-"], &words).await,
    };
    assert!(output.status.success(), "{output:?}");
    let json = text(&output.stdout);
    serde_json::from_str(json.lines().nth(1).unwrap()).unwrap()
}

fn open(outcomes: &Outcomes) -> Vec<&str> {
    outcomes.iter().filter(|(_, how)| *how == "open").map(|(name, _)| name.as_str()).collect()
}

const USER: u32 = 1234;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn what_acts_outside_is_hidden_and_stays_so() {
    let daemon = Daemon::start("");
    let all = [
        "abstract",
        "bystander",
        "database",
        "dbus",
        "docker",
        "gate",
        "gpg",
        "linked docker",
        "resolver",
        "session bus",
        "ssh",
        "systemd",
        "tmux",
        "wayland",
    ];
    // Without the gate everything answers: so what does not answer below is hidden.
    let (before, after) = outcomes(&daemon, USER, None).await;
    assert_eq!(open(&before), all, "{before:?}");
    assert_eq!(open(&after).len(), all.len() + 2, "{after:?}");

    for uid in [USER, 0] {
        let (before, after) = outcomes(&daemon, uid, Some(&[])).await;
        // A database and a display are not among what is hidden.
        let mut left = vec!["database", "wayland"];
        // Landlock scopes are the wall around root.
        if agentgate::launch::landlock::version().is_none_or(|version| version < 6) {
            left.insert(0, "abstract");
            if uid == 0 {
                left.insert(1, "bystander");
            }
        }
        assert_eq!(open(&before), left, "{uid} {before:?}");
        assert_eq!(open(&after), left, "{uid} {after:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn what_is_exposed_is_there() {
    let daemon = Daemon::start("");
    let exposed = async |flags: &[&str]| {
        let (before, _) = outcomes(&daemon, USER, Some(flags)).await;
        open(&before).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        exposed(&["--expose", "docker", "--expose", "ssh-agent"]).await,
        ["database", "docker", "linked docker", "ssh", "wayland"]
    );
    assert_eq!(
        exposed(&["--expose", "abstract", "--expose", "/run/dbus"]).await,
        ["abstract", "database", "dbus", "wayland"]
    );
    assert_eq!(exposed(&["--expose", "all"]).await.len(), 14);
    let wrong = on_a_host(&daemon, USER, &["--expose", "teapot"], &["echo", "ran"]).await;
    assert_eq!(wrong.status.code(), Some(125), "{wrong:?}");
    assert!(wrong.stdout.is_empty() && text(&wrong.stderr).contains("--expose teapot"), "{wrong:?}");
    daemon.stop().await;
}

/// The covers cannot be taken off by namespaces that the command makes, nor passed by processes outside.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_users_command_cannot_uncover_it() {
    const UNCOVER: &str = "
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
outside = os.environ['BYSTANDER']
def done(what, worked):
    print(what, 'WORKED' if worked else 'refused')
def reads(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
        return True
    except OSError:
        return False
def call(number, *arguments):
    return libc.syscall(number, *arguments) >= 0
for name in ('root', 'cwd', 'fd/0', 'mem', 'environ', 'ns/mnt'):
    done(name, reads(f'/proc/{outside}/{name}'))
done('ptrace', call(101, 16, int(outside), 0, 0))
pidfd = libc.syscall(434, int(outside), 0)
done('pidfd_getfd', call(438, pidfd, 0, 0))
done('setns', call(308, pidfd, 0x20000))
done('umount', call(166, b'/run', 2))
done('unshare', call(272, 0x10000000 | 0x20000))
done('umount inside', call(166, b'/run', 2))
done('bind without what covers', call(165, b'/', b'/mnt', None, 4096, None))
done('remount', call(165, None, b'/run', None, 4096 | 32, None))
done('seen', os.path.exists('/run/docker.sock') or os.path.exists('/mnt/run/docker.sock'))
";
    let daemon = Daemon::start("");
    let inside = on_a_host(&daemon, USER, &[], &["python3", "-c", UNCOVER]).await;
    assert!(inside.status.success(), "{inside:?}");
    let lines = text(&inside.stdout);
    let worked: Vec<&str> = lines.lines().filter(|line| line.ends_with("WORKED")).collect();
    // Namespaces of its own are an agent's to make: sandboxes do.
    assert_eq!(worked, ["unshare WORKED"], "{lines}");
    assert_eq!(lines.lines().count(), 15, "{lines}");
    // The same without the gate, so that the rows mean something.
    let outside = host(&daemon, USER, &["-"], &["python3", "-c", UNCOVER]).await;
    let lines = text(&outside.stdout);
    for what in ["root", "cwd", "fd/0", "mem", "environ", "ns/mnt", "ptrace", "pidfd_getfd", "seen"] {
        assert!(lines.contains(&format!("{what} WORKED")), "{what}: {lines}");
    }
    daemon.stop().await;
}

/// What agents do all day.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_command_works_as_before() {
    const WORK: &str = "
set -e
id -u; id -g
pwd
echo x > \"$HOME/file\"; cat \"$HOME/file\"
echo x > \"$XDG_RUNTIME_DIR/own\"; cat \"$XDG_RUNTIME_DIR/own\"
test -r /proc/self/status; test -r \"$SSL_CERT_FILE\"
test -z \"$SSH_AUTH_SOCK$TMUX\"
test -d /run/postgresql; test ! -w /run
sleep 0.01 & wait $!
(sleep 1000 & child=$!; kill -TERM $child; wait $child || echo $?) 2>/dev/null
python3 -c 'import os, ctypes
read, write = os.pipe()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), 19); os._exit(5)
print(os.WIFSTOPPED(os.waitpid(child, 0)[1]))
ctypes.CDLL(None).ptrace(7, child, 0, 0)
print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))'
unshare -Ur id -u
exit 7
";
    let daemon = Daemon::start("");
    let output = {
        let script = format!("export XDG_RUNTIME_DIR=/run/user/{USER}; {WORK}");
        on_a_host(&daemon, USER, &["--quiet"], &["sh", "-c", &script]).await
    };
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(text(&output.stdout), "1234\n1234\n/tmp/home\nx\nx\n143\nTrue\n5\n0\n", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let killed = on_a_host(&daemon, USER, &[], &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.status.code(), Some(128 + 9));
    // ssh looks at who owns its settings, and a tmux of the agent's own finds its place.
    let script = "ls -n /etc/ssh/ssh_config.d/; stat -c '%u %a' /tmp/tmux-1234; touch /tmp/tmux-1234/x";
    let owners = on_a_host(&daemon, USER, &["--quiet"], &["sh", "-c", script]).await;
    let said = text(&owners.stdout);
    assert!(owners.status.success() && said.contains("1234 755"), "{owners:?}");
    if PathBuf::from("/etc/ssh/ssh_config.d").exists() {
        assert!(said.contains("1234 1234") && said.contains("20-x.conf"), "{said}");
    }
    daemon.stop().await;
}

/// The filter, as the kernel runs it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn sockets_of_other_families_and_io_uring_are_not_there() {
    const TRY: &str = "
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for family in (1, 2, 10, 16):
    socket.socket(family, socket.SOCK_DGRAM).close()
refused = []
for family in list(range(0, 50)) + [255]:
    if family not in (1, 2, 10, 16) and libc.socket(family, 3, 0) < 0:
        refused.append(ctypes.get_errno())
print(len(refused), set(refused) == {errno.EAFNOSUPPORT})
params = ctypes.create_string_buffer(120)
print(libc.syscall(425, 8, params), errno.errorcode[ctypes.get_errno()])
";
    let daemon = Daemon::start("");
    for uid in [0, USER] {
        let output = on_a_host(&daemon, uid, &["--quiet"], &["python3", "-c", TRY]).await;
        assert_eq!(text(&output.stdout), "47 True\n-1 ENOSYS\n", "{uid} {output:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_descriptor_is_kept_where_asked_for_and_where_it_leads_nowhere() {
    let daemon = Daemon::start("");
    let (agentctl, root) = (daemon.agentctl.display(), daemon.dir.path().display());
    let run = |open: &str, flags: &str| {
        let script =
            format!("exec {open}; exec {agentctl} --root {root} run --quiet {flags} -- ls /proc/self/fd");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]);
        output(bash)
    };
    // 3 is the directory that ls reads.
    let kept = run("8</etc/passwd 9</etc/passwd", "--keep-fd 9").await;
    assert_eq!(text(&kept.stdout), "0\n1\n2\n3\n9\n", "{kept:?}");
    let rows = [
        ("9<>/dev/udp/127.0.0.1/9", "--keep-fd 9", "descriptor 9 is a network socket"),
        ("9</", "--keep-fd 9", "descriptor 9 is a directory"),
        ("0</", "", "descriptor 0 is a directory"),
        ("9</etc/passwd", "--keep-fd 8", "--keep-fd 8: no such descriptor"),
    ];
    for (open, flags, expect) in rows {
        let refused = run(open, flags).await;
        assert_eq!(refused.status.code(), Some(125), "{open} {refused:?}");
        assert!(refused.stdout.is_empty() && text(&refused.stderr).contains(expect), "{refused:?}");
    }
    daemon.stop().await;
}

/// Without a namespace nothing runs: never with less than was promised.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn where_namespaces_are_closed_nothing_runs() {
    let daemon = Daemon::start("");
    // In a user namespace whose limit is set to none, which leaves the host's as it is.
    const CLOSED: &str = "
import ctypes, os, sys
made, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).unshare(0x10000000)
    os.write(made[1], b'x'); os.read(go[0], 1)
    with open('/proc/sys/user/max_user_namespaces', 'w') as limit:
        limit.write('0')
    os.setgroups([]); os.setgid(1234); os.setuid(1234)
    os.execv(sys.argv[1], sys.argv[1:])
os.read(made[0], 1)
for name in ('uid_map', 'gid_map'):
    with open(f'/proc/{child}/{name}', 'w') as ids:
        ids.write('0 0 2000')
os.write(go[1], b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";
    let run = |flags: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", CLOSED]).arg(&daemon.agentctl).arg("--root").arg(daemon.dir.path()).arg("run");
        command.args(flags).args(["--", "echo", "ran"]);
        output(command)
    };
    let closed = run(&[]).await;
    assert_eq!(closed.status.code(), Some(125), "{closed:?}");
    let said = text(&closed.stderr);
    assert!(
        closed.stdout.is_empty() && said.contains("max_user_namespaces") && said.contains("--expose all"),
        "{said}"
    );
    let all = run(&["--expose", "all"]).await;
    assert_eq!((all.status.code(), text(&all.stdout).as_str()), (Some(0), "ran\n"), "{all:?}");
    daemon.stop().await;
}
