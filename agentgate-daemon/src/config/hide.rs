//! `[run]`: the places that `agentctl run` hides from a command, by name or by path.
//!
//! Behind each of them is a process outside the guarded cgroup that does something on behalf of whoever
//! asks: starts a container or a unit, looks up a name, signs, types into a shell. Names stand for lists
//! that ship; a host adds paths of its own.

use serde::{Deserialize, Serialize};

/// `[run]`: what `agentctl run` hides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Names of [`PLACES`] and absolute paths. In a path `{uid}` and `{home}` stand for those of the
    /// command's user, `*` in its last part for any text, and a directory named with a slash at its end
    /// is made where it is missing, so that it can be hidden.
    pub hide: Vec<String>,
    /// Whether the system's own roots are, in the view that an ordinary user's command has, those with the
    /// gate's among them.
    pub system_bundle: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self { hide: PLACES.iter().map(|place| place.name.to_owned()).collect(), system_bundle: true }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// As in `hide` and `--expose`.
    pub name: &'static str,
    /// Patterns as in [`Run::hide`].
    pub paths: &'static [&'static str],
    /// Variables that name a socket of it, which is hidden too.
    pub variables: &'static [&'static str],
    /// Variables that are taken away with it, since clients would fail on them instead of doing without.
    pub unset: &'static [&'static str],
}

const fn place(name: &'static str, paths: &'static [&'static str]) -> Place {
    Place { name, paths, variables: &[], unset: &[] }
}

/// Every place with a name, all hidden by default. Directories where a service has one: a socket that is
/// made anew in it stays hidden.
pub const PLACES: [Place; 22] = [
    // Start containers, with any network and any part of the host's files.
    Place {
        variables: &["DOCKER_HOST"],
        ..place(
            "docker",
            &[
                "/run/docker.sock",
                "/run/docker",
                "/run/user/{uid}/docker.sock",
                "/run/user/{uid}/docker*",
                "{home}/.docker/run",
                "{home}/.docker/desktop",
            ],
        )
    },
    place("containerd", &["/run/containerd", "/run/k3s", "/run/user/{uid}/containerd*"]),
    Place { variables: &["CONTAINER_HOST"], ..place("podman", &["/run/podman", "/run/user/{uid}/podman"]) },
    place("crio", &["/run/crio"]),
    place("buildkit", &["/run/buildkit", "/run/user/{uid}/buildkit*"]),
    // Start virtual machines and system containers.
    place("libvirt", &["/run/libvirt", "/run/user/{uid}/libvirt"]),
    place("lxd", &["/var/lib/lxd", "/var/snap/lxd/common/lxd", "/var/lib/incus", "/run/incus", "/run/lxd*"]),
    // Starts units, as root and as the user; fetches images; machines.
    place(
        "systemd",
        &[
            "/run/systemd/private",
            "/run/systemd/io.*",
            "/run/systemd/machine*",
            "/run/systemd/portable*",
            "/run/systemd/import*",
            "/run/user/{uid}/systemd",
        ],
    ),
    // Both buses: the way to the two above and to whatever else is on them. The bus of accessibility
    // can type.
    Place {
        variables: &["DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "AT_SPI_BUS_ADDRESS"],
        unset: &["DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "AT_SPI_BUS_ADDRESS"],
        ..place(
            "dbus",
            &["/run/dbus", "/run/user/{uid}/bus", "/run/user/{uid}/dbus*", "/run/user/{uid}/at-spi*"],
        )
    },
    // Look up names for whoever asks, past the gate's own server.
    place(
        "resolver",
        &["/run/systemd/resolve/io.*", "/run/nscd", "/run/unscd", "/run/avahi-daemon", "/var/lib/sss/pipes"],
    ),
    // Sign as the user.
    Place {
        variables: &["SSH_AUTH_SOCK"],
        unset: &["SSH_AUTH_SOCK", "SSH_AGENT_PID"],
        ..place(
            "ssh-agent",
            &[
                "/run/user/{uid}/ssh-*",
                "/run/user/{uid}/openssh_agent",
                "/run/user/{uid}/keyring*",
                "/run/user/{uid}/gcr",
                "/tmp/ssh-*",
                "{home}/.ssh/agent",
            ],
        )
    },
    Place {
        variables: &["GPG_AGENT_INFO"],
        unset: &["GPG_AGENT_INFO"],
        ..place("gpg-agent", &["/run/user/{uid}/gnupg", "{home}/.gnupg/S.*", "/run/pcscd"])
    },
    // Type into shells outside. The directories are made, so that a server outside that starts later is
    // hidden as well, and one inside has a place of its own.
    Place {
        variables: &["TMUX"],
        unset: &["TMUX", "TMUX_PANE"],
        ..place("tmux", &["/tmp/tmux-{uid}/", "/run/user/{uid}/tmux-*", "/run/tmux"])
    },
    Place {
        unset: &["STY"],
        ..place("screen", &["/run/screen", "/tmp/screens", "{home}/.screen", "/run/user/{uid}/zellij"])
    },
    // Open files, run tasks and type in editors and terminals outside.
    Place {
        variables: &["VSCODE_IPC_HOOK_CLI", "VSCODE_GIT_IPC_HANDLE", "NVIM", "KITTY_LISTEN_ON"],
        unset: &["VSCODE_IPC_HOOK_CLI", "NVIM", "KITTY_LISTEN_ON"],
        ..place(
            "editor",
            &[
                "/run/user/{uid}/vscode-*",
                "/run/user/{uid}/nvim*",
                "/run/user/{uid}/emacs",
                "/run/user/{uid}/kakoune",
                "/run/user/{uid}/wezterm",
                "/tmp/vscode-*",
                "/tmp/nvim.*",
                "/tmp/emacs{uid}",
                "/tmp/kitty-*",
            ],
        )
    },
    // Open an address in the browser outside: where chromium's process singleton has its socket.
    place("browser", &["/tmp/.com.google.Chrome.*", "/tmp/.org.chromium.Chromium.*", "/tmp/org.chromium.*"]),
    // Load modules that make network connections.
    place("audio", &["/run/user/{uid}/pulse", "/run/user/{uid}/pipewire-*"]),
    // Ask shops and printers on the network.
    place("snap", &["/run/snapd.socket", "/run/snapd-snap.socket"]),
    place("cups", &["/run/cups"]),
    // Dial for any user of the host.
    place("vpn", &["/run/tailscale", "/run/mullvad-vpn", "/run/netbird.sock"]),
    // Fetch what a derivation names.
    place("nix", &["/nix/var/nix/daemon-socket", "/var/guix/daemon-socket"]),
    // Run jobs on this host and others.
    place("jobs", &["/run/slurm*", "/run/munge"]),
];

/// The place called `name`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.name == name)
}

/// What is wrong with an entry of `hide`, and what to write instead.
#[must_use]
pub fn fault(entry: &str) -> Option<(String, String)> {
    let is_path = entry.starts_with('/') || entry.starts_with("{home}/");
    if !is_path {
        let known: Vec<&str> = PLACES.iter().map(|place| place.name).collect();
        let hint = format!("write an absolute path, or one of {}", known.join(", "));
        return named(entry).is_none().then(|| (format!("names `{entry}`, which is no place"), hint));
    }
    let mut parts = entry.split('/').filter(|part| !part.is_empty()).peekable();
    let mut depth = 0;
    while let Some(part) = parts.next() {
        depth += 1;
        if matches!(part, "." | "..") {
            return Some((format!("has `{entry}`"), "write it without . and ..".to_owned()));
        }
        if part.contains('*') && parts.peek().is_some() {
            return Some((format!("has `{entry}`"), "write * in the last part only".to_owned()));
        }
    }
    let shared =
        ["/", "/run", "/var/run", "/tmp", "/proc", "/sys", "/dev", "/etc", "/usr", "/home", "{home}"];
    if depth == 0 || shared.contains(&entry.trim_end_matches('/')) {
        return Some((
            format!("has `{entry}`, which no command can do without"),
            "name what is in it".to_owned(),
        ));
    }
    entry.contains('\0').then(|| ("has a NUL".to_owned(), "write a path".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_is_well_formed_and_named_once() {
        for (at, place) in PLACES.iter().enumerate() {
            assert!(PLACES[..at].iter().all(|other| other.name != place.name), "{}", place.name);
            assert!(!place.paths.is_empty());
            for path in place.paths {
                assert_eq!(fault(path), None, "{path}");
            }
        }
        assert_eq!(Run::default().hide.len(), PLACES.len());
        assert!(Run::default().hide.iter().all(|name| fault(name).is_none()));
    }

    #[test]
    fn entries_that_would_not_do_what_they_say_are_faults() {
        for good in ["docker", "/srv/x.sock", "{home}/.x/agent", "/run/user/{uid}/a*", "/tmp/x-{uid}/"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in
            ["dockr", "", "run/x", "/a/../b", "/a*/b", "/", "/run", "/run/", "{home}", "{home}/", "/tmp"]
        {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
