//! Defaults, faults with their places, and the example that ships.

use super::*;

fn check(text: &str, expect: &[&str]) {
    let found: Vec<String> = match Config::parse("agentgate.toml", text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expect, "{text}");
}

#[test]
fn empty_is_default() {
    assert_eq!(Config::parse("agentgate.toml", "").unwrap(), Config::default());
}

#[test]
fn what_is_written_is_read() {
    let config = Config::parse(
        "agentgate.toml",
        "[gate]\ncgroup = \"/sys/fs/cgroup/x\"\nlisten_port = 1\n[dns]\nresolvers = [\"198.51.100.53\", \"[2001:db8::1]:5353\"]\n\
         [tls]\nextra_roots = \"/r.pem\"\n[capture]\nrequest_bytes = 0\n[audit]\ndurability = \"backpressure\"\ntext = \"heads\"\n[limits]\nsilence_ms = 200\n\
         [dashboard]\nenabled = false\nlisten = \"[::1]:9000\"\n[control]\ngroup = \"ops\"\n\
         [run]\nhide = [\"docker\", \"/srv/x.sock\"]\n[log]\nfilter = \"debug,hyper=info\"\nformat = \"json\"\n",
    )
    .unwrap();
    assert_eq!(config.gate.cgroup, "/sys/fs/cgroup/x");
    assert_eq!(config.gate.listen_port, 1);
    let resolvers: Vec<String> = config.dns.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(resolvers, ["198.51.100.53:53", "[2001:db8::1]:5353"]);
    assert_eq!(config.tls.extra_roots.as_deref(), Some(Path::new("/r.pem")));
    assert_eq!((config.capture.request_bytes, config.capture.response_bytes), (0, 1024 * 1024));
    assert_eq!(config.audit.durability, Durability::Backpressure);
    assert_eq!(config.audit.text, TextIndex::Heads);
    assert_eq!(config.limits.silence(), Duration::from_millis(200));
    assert_eq!(config.limits.sniff_timeout(), Duration::from_secs(5), "the others keep their defaults");
    assert!(!config.dashboard.enabled);
    assert_eq!(config.control.group, "ops");
    assert_eq!(config.run.hide, ["docker", "/srv/x.sock"]);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn faults_have_places() {
    let at = |rest: &str| format!("agentgate.toml:{rest}");
    check("gates = 1", &[&at("1:1: unknown key `gates`; did you mean `gate`?")]);
    check(
        "[limits]\nsniff_timeout = 5",
        &[&at(
            "2:1: unknown key `sniff_timeout`; known here: silence_ms, header_timeout_ms, handshake_timeout_ms, header_bytes, \
               connect_timeout_ms, idle_timeout_ms, drain_timeout_ms, connections",
        )
        .replace("known here: ", "known here: sniff_timeout_ms, ")],
    );
    check("[gate]\ncgroop = \"x\"", &[&at("2:1: unknown key `cgroop`; did you mean `cgroup`?")]);
    check("[gate]\nlisten_port = 70000", &[&at("2:15: invalid value: integer `70000`, expected u16")]);
    check(
        "[log]\nformat = \"xml\"",
        &[&at("2:10: `xml` is not a value of this key; known here: text, json")],
    );
    check(
        "[dns]\nresolvers = [\"dns.example\"]",
        &[&at("2:13: \"dns.example\" is not a resolver: write an address, or [address]:port for IPv6")],
    );
    check(
        "[dashboard]\nlisten = \"0.0.0.0:7878\"",
        &[&at("2:10: `dashboard.listen` is not a loopback address; write 127.0.0.1 and use ssh -L")],
    );
    check(
        "dns.listen_port = 7879",
        &[&at("1:19: `dns.listen_port` is the port of `gate.listen_port`; write another port")],
    );
    check(
        "dns.listen_port = 7878",
        &[&at("1:19: `dns.listen_port` is the port of `dashboard.listen`; write another port")],
    );
    check(
        "dashboard.listen = \"127.0.0.1:7879\"",
        &[&at("1:20: `dashboard.listen` has the port of `gate.listen_port`; write another port")],
    );
    check("[limits]\nconnections = 0", &[&at("2:15: `limits.connections` is 0; write 1 to 65536")]);
    check(
        "[limits]\n  sniff_timeout_ms = 500",
        &[
            "agentgate.toml: `limits.silence_ms` is longer than `limits.sniff_timeout_ms`; write a shorter time",
        ],
    );
    check(
        "[capture]\nrequest_bytes = 1\nresponse_bytes = 67108865",
        &[&at("3:18: `capture.response_bytes` is 67108865; write 0 to 67108864")],
    );
    check("[gate", &[&at("1:6: unclosed table, expected `]`")]);
    for cgroup in ["", "/", "../x", "a/../../b"] {
        check(
            &format!("[gate]\ncgroup = \"{cgroup}\""),
            &[&at(
                "2:10: `gate.cgroup` is not a cgroup that can be guarded; write a name such as agent.slice",
            )],
        );
    }
    check(
        "[run]\nhide = [\"docker\", \"/run\"]",
        &[&at("2:8: `run.hide` has `/run`, which no command can do without; name what is in it")],
    );
    check(
        "[control]\ngroup = \"\"",
        &[&at("2:9: `control.group` is not a group's name; write a name such as agentgate")],
    );
    let errors = Config::parse("f", "[log]\nfilter = \"info,=\"\n[limits]\nconnections = 0").unwrap_err();
    assert_eq!(errors.len(), 2, "all faults at once: {errors:?}");
}

#[test]
fn load_reads_below_the_root() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::below(root.path());
    assert_eq!(paths.policy, root.path().join("etc/agentgate/policy.toml"));
    fs::create_dir_all(&paths.etc).unwrap();
    fs::write(paths.config(), "[dns]\nresolvers = [\"198.51.100.53\"]\n[gate]\nlisten_port = 1234\n")
        .unwrap();
    let config = Config::load(None, root.path()).unwrap();
    assert_eq!(config.gate.listen_port, 1234);
    assert_eq!(config.paths, paths);

    let elsewhere = root.path().join("other.toml");
    let missing = Config::load(Some(&elsewhere), root.path()).unwrap_err();
    assert!(missing[0].to_string().starts_with(&elsewhere.display().to_string()), "{missing:?}");
    fs::write(&elsewhere, "[dns]\nresolvers = [\"198.51.100.53:54\"]\n").unwrap();
    let config = Config::load(Some(&elsewhere), root.path()).unwrap();
    assert_eq!(config.dns.resolvers, [SocketAddr::from(([198, 51, 100, 53], 54))]);
    assert!(Config::load(Some(root.path()), root.path()).is_err(), "a directory is no file");
}

#[test]
fn default_paths_are_those_of_the_host() {
    let paths = Paths::default();
    for (path, expect) in [
        (&paths.policy, "/etc/agentgate/policy.toml"),
        (&paths.lists, "/etc/agentgate/lists"),
        (&paths.mode, "/var/lib/agentgate/mode"),
        (&paths.store, "/var/lib/agentgate/audit.redb"),
        (&paths.ca_key, "/var/lib/agentgate/ca.key"),
        (&paths.control_socket, "/run/agentgate/control.sock"),
        (&paths.enrol_socket, "/run/agentgate/enrol.sock"),
        (&paths.bundle, "/run/agentgate/ca-bundle.pem"),
    ] {
        assert_eq!(path, Path::new(expect));
    }
}

/// The example names every key, with its default.
#[test]
fn the_example_that_ships_is_the_default() {
    let text = include_str!("../../../packaging/agentgate.toml");
    assert_eq!(Config::parse("packaging/agentgate.toml", text).unwrap(), Config::default());
    let written: toml::Table = toml::from_str(text).unwrap();
    assert_eq!(written, toml::Table::try_from(Document::default()).unwrap());
}
