//! The real programs on a real cgroup, attacked.
#![expect(unsafe_code, reason = "unshare(2) in the lab")]

#[path = "kernel/lab.rs"]
mod lab;

use agentgate::kernel::Kernel;
use lab::in_namespaces;
use serde_json::json;

#[test]
#[ignore = "needs root; run by cargo xtask test"]
fn tcp_comes_to_the_listener_with_its_flow() {
    in_namespaces(|lab| {
        let kernel = lab.start();
        let [v4, v6] = lab.listeners();
        let rows = [
            (
                "connect(('203.0.113.7', 443))",
                "203.0.113.7:443",
                "203.0.113.7",
                &v4,
            ),
            (
                "connect6(('2001:db8::7', 443))",
                "[2001:db8::7]:443",
                "2001:db8::7",
                &v6,
            ),
            (
                "connect6(('::ffff:203.0.113.7', 443))",
                "203.0.113.7:443",
                "::ffff:203.0.113.7",
                &v4,
            ),
            (
                "connect(('203.0.113.8', 8443), protocol=262)",
                "203.0.113.8:8443",
                "203.0.113.8",
                &v4,
            ),
            (
                "connect6(('2001:db8::8', 8443), protocol=262)",
                "[2001:db8::8]:8443",
                "2001:db8::8",
                &v6,
            ),
        ];
        for (call, original, shown, listener) in rows {
            let (seen, pid) = lab.agent(&format!("show(peer={call}, uid=os.getuid())"));
            let (stream, peer) = listener.accept().unwrap();
            drop(stream);
            let flow = kernel
                .take_flow(peer)
                .unwrap()
                .unwrap_or_else(|| panic!("{call}: no flow of {peer}"));
            assert_eq!(flow.original.0, original.parse().unwrap(), "{call}");
            assert_eq!(seen["peer"], json!([shown, flow.original.0.port()]), "{call}");
            assert_eq!(flow.pid, pid, "{call}");
            assert_eq!(flow.comm, "python3", "{call}");
            assert!(flow.cookie != 0 && flow.connected_ns != 0, "{call}");
            assert_eq!(kernel.take_flow(peer).unwrap(), None, "{call}: read once");
        }
    });
}
