//! What a command trusts: real clients shake hands with a server whose certificate the gate's authority
//! has signed.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener as Listener},
    path::Path,
    sync::Arc,
};

use agentgate::tls::Leaves;

use super::*;

/// Answers every request over TLS as `localhost`; gives the port. Ends with the process.
fn server(daemon: &Daemon) -> u16 {
    let leaves = Leaves::new(Arc::clone(&daemon.ca)).unwrap();
    let leaf = leaves.leaf(&agentgate::model::Host::parse("localhost").unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_cert_resolver(Arc::new(Always(leaf))));
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let config = config.clone();
            std::thread::spawn(move || {
                let mut connection = rustls::ServerConnection::new(config).unwrap();
                let mut tcp = tcp.unwrap();
                let mut stream = rustls::Stream::new(&mut connection, &mut tcp);
                let mut head = [0; 4096];
                if stream.read(&mut head).is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes";
                    stream.write_all(answer).and_then(|()| stream.flush()).unwrap();
                    connection.send_close_notify();
                    let _gone = connection.write_tls(&mut tcp);
                }
            });
        }
    });
    port
}

#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// `agentctl run flags -- sh -c script` as `uid`, with `more` in the environment.
async fn run(daemon: &Daemon, uid: &str, flags: &[&str], script: &str, more: &[(&str, &Path)]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]);
    command.arg(&daemon.agentctl).arg("--root").arg(daemon.dir.path()).arg("run").args(flags);
    command.args(["--", "sh", "-c", script]).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(more.iter().copied());
    output(command).await
}

/// Programs that read no variable: with none at all in their environment.
const CLIENTS: [(&str, &str); 4] = [
    // GnuTLS: a bundle.
    ("wget", "env -i /usr/bin/wget -q -O - https://localhost:PORT/"),
    ("curl", "env -i /usr/bin/curl -sS https://localhost:PORT/"),
    // OpenSSL's own defaults: on Debian a directory of hashes.
    (
        "python",
        "env -i /usr/bin/python3 -c 'import urllib.request as r; print(r.urlopen(\"https://localhost:PORT/\").read().decode())'",
    ),
    // A key store. It takes what it gets for a list of revoked certificates, which it is not.
    (
        "java",
        "env -i PATH=/usr/bin /usr/bin/keytool -J-Duser.language=en -printcrl -file https://localhost:PORT/",
    ),
];

/// Whether the client got its answer.
fn trusts(name: &str, output: &Output) -> bool {
    if name == "java" {
        let said = text(&output.stdout);
        assert!(said.contains("PKIX path building failed") || said.contains("CRL"), "{output:?}");
        return !said.contains("PKIX");
    }
    assert_eq!(output.status.success(), text(&output.stdout).trim() == "yes", "{name} {output:?}");
    output.status.success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn programs_that_read_no_variable_trust_the_gate_in_the_command_s_view_only() {
    let daemon = Daemon::start("");
    let port = server(&daemon).to_string();
    for (name, script) in CLIENTS {
        let script = script.replace("PORT", &port);
        for (uid, flags, expect) in [
            ("1234", &["-q"][..], true),
            ("1234", &["-q", "--keep-system-bundle"], false),
            // Who looks after the system's own sees them as they are.
            ("0", &["-q"], false),
            ("0", &["-q", "--system-bundle"], true),
        ] {
            let output = run(&daemon, uid, flags, &script, &[]).await;
            assert_eq!(trusts(name, &output), expect, "{name} {uid} {flags:?} {output:?}");
        }
        let mut outside = Command::new("sh");
        outside.args(["-c", &script]);
        assert!(!trusts(name, &output(outside).await), "{name}");
    }
    // What is mounted there is for reading, also for root.
    let write = "echo x > /etc/ssl/certs/mine.pem || echo x >> /etc/ssl/certs/ca-certificates.crt";
    for uid in ["0", "1234"] {
        let refused = run(&daemon, uid, &["-q", "--system-bundle"], write, &[]).await;
        assert!(!refused.status.success(), "{refused:?}");
    }
    let neither = run(&daemon, "1234", &["--system-bundle", "--expose", "all"], "true", &[]).await;
    assert_eq!(neither.status.code(), Some(125), "{neither:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn java_is_told_of_a_store_where_its_own_is_the_host_s() {
    let daemon = Daemon::start("");
    let port = server(&daemon).to_string();
    let script = CLIENTS[3].1.replace("PORT", &port).replace("env -i PATH=/usr/bin ", "");
    for flags in [&["-q", "--keep-system-bundle"][..], &["-q", "--expose", "all"]] {
        let told = run(&daemon, "1234", flags, &script, &[]).await;
        assert!(trusts("java", &told), "{flags:?} {told:?}");
        assert!(text(&told.stderr).contains("Picked up JAVA_TOOL_OPTIONS"), "{told:?}");
    }
    // Otherwise nothing is said that would not be without the gate.
    let plain = run(&daemon, "1234", &["-q"], &script, &[]).await;
    assert!(trusts("java", &plain) && plain.stderr.is_empty(), "{plain:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root; run by cargo xtask test"]
async fn a_company_s_ca_that_the_user_names_is_in_what_the_command_gets() {
    let daemon = Daemon::start("");
    let made = |name: &str| {
        let (cert, key) = (daemon.dir.path().join(name), daemon.dir.path().join(format!("{name}.key")));
        let ca = Ca::load_or_create(&cert, &key).unwrap();
        (cert, ca.pem().lines().nth(1).unwrap().to_owned())
    };
    let ((node, in_node), (file, in_file)) = (made("node.pem"), made("file.pem"));
    let bundle = Paths::below(daemon.dir.path()).bundle;
    let before = fs::read_to_string(&bundle).unwrap();
    let script = "cat $SSL_CERT_FILE; echo; echo ====; cat $NODE_EXTRA_CA_CERTS; echo ====; \
                  cat /etc/ssl/certs/ca-certificates.crt";
    let more = [
        ("NODE_EXTRA_CA_CERTS", node.as_path()),
        ("SSL_CERT_FILE", &file),
        ("PIP_CERT", Path::new("/nonexistent/corp.pem")),
    ];
    let merged = run(&daemon, "1234", &[], script, &more).await;
    assert!(merged.status.success(), "{merged:?}");
    let said = text(&merged.stdout);
    let [whole, added, system] = said.split("====").collect::<Vec<_>>()[..] else { panic!("{said}") };
    let own = daemon.ca.pem().lines().nth(1).unwrap();
    assert!([own, &in_node, &in_file].iter().all(|part| whole.contains(*part)));
    // Node has roots of its own, so it gets what was meant for it.
    assert!([own, &in_node].iter().all(|part| added.contains(*part)) && !added.contains(&in_file));
    assert_eq!(system.trim(), whole.trim());
    let told = text(&merged.stderr);
    assert!(told.contains("what SSL_CERT_FILE, NODE_EXTRA_CA_CERTS named is in the bundle"), "{told}");
    assert!(told.contains("PIP_CERT is left out: /nonexistent/corp.pem: No such file"), "{told}");
    // In this command's view only.
    assert_eq!(fs::read_to_string(&bundle).unwrap(), before);
    let other = run(&daemon, "1234", &["-q"], "cat $SSL_CERT_FILE", &[]).await;
    assert_eq!(text(&other.stdout), before);
    // Without a view there is no place for it, which is told.
    let exposed = run(&daemon, "1234", &["--expose", "all"], "cat $SSL_CERT_FILE", &more).await;
    assert_eq!(text(&exposed.stdout), before);
    assert!(text(&exposed.stderr).contains("without what is in yours"), "{exposed:?}");
    daemon.stop().await;
}
