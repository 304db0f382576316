//! The host: its kernel, what is mounted, what ships and is installed.

use std::{fs, io, path::Path};

use agentgate_common::names::PROGRAMS;

use super::Check;
use crate::{
    config::Config,
    kernel::cgroup2_mount,
    launch::{landlock, namespaces, systemd},
};

/// Where units are, highest precedence first (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];
/// What ships, and whether it can be done without.
const UNITS: [&str; 3] = ["agentgated.service", "agent.slice", "agent@.service"];

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let release = rustix::system::uname();
    let mut checks = vec![kernel(&release.release().to_string_lossy())];
    checks.extend(cgroup(config));
    checks.push(btf());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    checks.push(bpffs(&mounts, &config.gate.pin_dir));
    checks.push(programs(
        fs::read_dir(&config.gate.pin_dir)
            .map(|pins| pins.filter_map(|pin| pin.ok()?.file_name().into_string().ok()).collect()),
    ));
    checks.push(bpf_lsm(fs::read_to_string("/sys/kernel/security/lsm")));
    checks.push(seccomp());
    checks.push(scopes(landlock::version()));
    checks.push(user_namespaces(namespaces::obstacle()));
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    let own = [config.gate.listen_port, config.dns.listen_port, config.dashboard.listen.port()];
    checks.push(ports(&own, setting("ip_local_port_range"), setting("ip_local_reserved_ports")));
    if systemd::is_running() {
        checks.push(units(|unit| UNIT_DIRECTORIES.iter().any(|at| Path::new(at).join(unit).exists())));
    }
    checks
}

fn kernel(release: &str) -> Check {
    let name = "kernel";
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 4) {
        return Check::ok(name, release);
    }
    if version >= (6, 1) {
        return Check::warn(name, release)
            .advise("before 6.4 packets of sockets from outside are not watched, only calls on them");
    }
    Check::fail(name, release).advise("use Linux 6.1 or later: nothing older was tried")
}

fn cgroup(config: &Config) -> Vec<Check> {
    let mount = match cgroup2_mount() {
        Ok(mount) => mount,
        Err(error) => {
            let check = Check::fail("cgroup2", error.to_string());
            return vec![check.advise("mount it: mount -t cgroup2 none /sys/fs/cgroup")];
        }
    };
    let guarded = mount.join(&config.gate.cgroup);
    let shown = guarded.display().to_string();
    let guarded = if guarded.is_dir() {
        Check::ok("guarded cgroup", shown)
    } else {
        Check::fail("guarded cgroup", format!("{shown} is not there"))
            .advise("start agentgated, which makes it")
    };
    vec![Check::ok("cgroup2", mount.display().to_string()), guarded]
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return Check::ok("btf", path);
    }
    Check::warn("btf", format!("{path} is not there"))
        .advise("LSM hooks need it: use a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn bpffs(mounts: &str, pins: &Path) -> Check {
    let name = "bpffs";
    // `device point type options …`, with spaces of the point escaped; no bpffs is mounted at such.
    let mut points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "bpf").then_some(point)
    });
    match points.rfind(|point| pins.starts_with(point)) {
        Some(point) => Check::ok(name, point),
        None => Check::fail(name, format!("{} is not on one", pins.display()))
            .advise("agentgated mounts it at /sys/fs/bpf; elsewhere: mount -t bpf bpf DIRECTORY"),
    }
}

/// The pins keep the programs attached while the daemon is down.
fn programs(pins: io::Result<Vec<String>>) -> Check {
    let name = "programs";
    match pins {
        Ok(pins) => {
            let missing: Vec<&str> =
                PROGRAMS.into_iter().filter(|program| !pins.iter().any(|pin| pin == program)).collect();
            if missing.is_empty() {
                return Check::ok(name, format!("{} pinned", PROGRAMS.len()));
            }
            Check::fail(name, format!("not pinned: {}", missing.join(", ")))
                .advise("start agentgated, or restart it: nothing holds these without it")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::fail(name, "none is pinned").advise("start agentgated: nothing is guarded")
        }
        Err(error) => Check::unseen(name, format!("pins: {error}")).advise("ask as root"),
    }
}

fn bpf_lsm(active: io::Result<String>) -> Check {
    let name = "bpf lsm";
    match active {
        Ok(active) if active.trim().split(',').any(|lsm| lsm == "bpf") => Check::ok(name, active.trim()),
        Ok(active) => Check::warn(name, format!("not among {}", active.trim())).advise(
            "sockets of other families and sockets handed over are left to the other layers; boot with bpf in lsm=",
        ),
        Err(error) => Check::warn(name, format!("unknown, /sys/kernel/security/lsm: {error}"))
            .advise("mount -t securityfs none /sys/kernel/security shows it; `layers` says whether it is used"),
    }
}

fn seccomp() -> Check {
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return Check::ok("seccomp", "available to agentctl run");
    }
    Check::fail("seccomp", "this kernel has none")
        .advise("agentctl run needs it: use a kernel with CONFIG_SECCOMP_FILTER")
}

fn scopes(version: Option<u32>) -> Check {
    let name = "landlock";
    match version {
        Some(version) if version >= landlock::SCOPES => {
            Check::ok(name, format!("ABI {version}, with scopes"))
        }
        Some(version) => Check::warn(name, format!("ABI {version}, without scopes"))
            .advise("abstract unix sockets stay open to commands of agentctl run; Linux 6.12 closes them"),
        None => Check::warn(name, "off").advise(
            "abstract unix sockets stay open to commands of agentctl run; boot with landlock in lsm=",
        ),
    }
}

fn user_namespaces(obstacle: Option<&str>) -> Check {
    let name = "user namespaces";
    match obstacle {
        None => Check::ok(name, "open to ordinary users"),
        Some(why) => Check::warn(name, why).advise(
            "agentctl run cannot hide sockets for ordinary users then, and refuses; agent@.service can",
        ),
    }
}

/// Whether the kernel may hand out the gate's own ports to whoever asks for any: while the daemon is down an
/// agent could have one that way, which no program on bind(2) sees.
fn ports(own: &[u16], range: io::Result<String>, reserved: io::Result<String>) -> Check {
    let name = "ports";
    let (Ok(range), Ok(reserved)) = (range, reserved) else {
        return Check::unseen(name, "the range of local ports cannot be read");
    };
    let bounds: Vec<u16> = range.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [first, last] = bounds[..] else {
        return Check::unseen(name, "the range of local ports cannot be read");
    };
    let kept = |port: u16| {
        reserved.trim().split(',').any(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            matches!((from.parse(), to.parse()), (Ok(from), Ok(to)) if (from..=to).contains(&port))
        })
    };
    let open: Vec<String> = own
        .iter()
        .filter(|port| **port != 0 && (first..=last).contains(*port) && !kept(**port))
        .map(ToString::to_string)
        .collect();
    if open.is_empty() {
        return Check::ok(name, "nobody is given the gate's own by chance");
    }
    let listed = open.join(",");
    Check::warn(name, format!("{listed}: within net.ipv4.ip_local_port_range ({first}-{last}), not reserved"))
        .advise(format!("sysctl net.ipv4.ip_local_reserved_ports={listed}, added to what is there"))
}

fn units(installed: impl Fn(&str) -> bool) -> Check {
    let missing: Vec<&str> = UNITS.into_iter().filter(|unit| !installed(unit)).collect();
    if missing.is_empty() {
        return Check::ok("units", UNITS.join(", "));
    }
    Check::warn("units", format!("not installed: {}", missing.join(", ")))
        .advise("copy them from packaging/systemd to /etc/systemd/system, and systemctl daemon-reload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn kernels_by_version() {
        for (release, expect) in [
            ("6.18.44-fc", State::Ok),
            ("6.4.0", State::Ok),
            ("6.1.0-40-cloud-amd64", State::Warn),
            ("5.15.0", State::Fail),
            ("10.0", State::Ok),
            ("strange", State::Fail),
        ] {
            assert_eq!(kernel(release).state, expect, "{release}");
        }
    }

    #[test]
    fn own_ports_are_not_for_everybody() {
        let state = |range: &str, reserved: &str| {
            ports(&[7879, 7880, 0], Ok(range.to_owned()), Ok(reserved.to_owned())).state
        };
        assert_eq!(state("32768\t60999\n", "\n"), State::Ok);
        assert_eq!(state("1024\t60999\n", "\n"), State::Warn);
        assert_eq!(state("1024\t60999\n", "7879\n"), State::Warn);
        assert_eq!(state("1024\t60999\n", "80,7878-7881\n"), State::Ok);
        assert_eq!(state("", ""), State::Unseen);
        let told = ports(&[7879, 7880], Ok("1024 60999".to_owned()), Ok("7879".to_owned()));
        assert!(told.advice.contains("ip_local_reserved_ports=7880"), "{told:?}");
    }

    #[test]
    fn bpffs_by_mounts() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(bpffs(mounts, Path::new("/sys/fs/bpf/agentgate")).state, State::Ok);
        assert_eq!(bpffs(mounts, Path::new("/sys/fs/bpfx/agentgate")).state, State::Fail);
        assert_eq!(bpffs("", Path::new("/sys/fs/bpf/agentgate")).state, State::Fail);
    }

    #[test]
    fn programs_by_pins() {
        let all = || PROGRAMS.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(programs(Ok(all())).state, State::Ok);
        let lacking = programs(Ok(all().into_iter().skip(1).collect()));
        assert!(lacking.state == State::Fail && lacking.found.contains(PROGRAMS[0]), "{lacking:?}");
        assert_eq!(programs(Err(io::ErrorKind::NotFound.into())).state, State::Fail);
        assert_eq!(programs(Err(io::ErrorKind::PermissionDenied.into())).state, State::Unseen);
    }

    #[test]
    fn layers_by_what_the_kernel_says() {
        let lsm = |text: &str| bpf_lsm(Ok(text.to_owned())).state;
        assert_eq!(lsm("lockdown,capability,landlock,bpf\n"), State::Ok);
        assert_eq!(lsm("lockdown,bpfx"), State::Warn);
        assert_eq!(bpf_lsm(Err(io::ErrorKind::NotFound.into())).state, State::Warn);
        assert_eq!(
            (scopes(Some(7)).state, scopes(Some(5)).state, scopes(None).state),
            (State::Ok, State::Warn, State::Warn)
        );
        assert_eq!((user_namespaces(None).state, user_namespaces(Some("x")).state), (State::Ok, State::Warn));
        assert_eq!(units(|_| true).state, State::Ok);
        let lacking = units(|unit| unit != "agent.slice");
        assert!(lacking.state == State::Warn && lacking.found == "not installed: agent.slice", "{lacking:?}");
    }
}
