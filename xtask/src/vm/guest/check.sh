#!/bin/bash
# Runs in the virtual machine, as a unit, with the small internet standing: tells on the console what held.
# The lines are those of report.rs.
exec 2>&1
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
cp /run/internet/resolv.conf /etc/resolv.conf
LAB=/usr/lib/agentgate-lab
UNIT=agentgated.service
DROP=/run/systemd/system/$UNIT.d

ask() { python3 $LAB/ask.py "$@"; }
last() { ask last; }
recorded() { ask recorded "$@"; }
agent() { ask agent "$@"; }

# NAME COMMAND...: the command in a shell of its own that ends at the first failure.
check() {
    local name=$1 began=$SECONDS status
    shift
    (set -e; "$@") </dev/null 2>&1 | sed -u 's/^/  | /'
    status=${PIPESTATUS[0]}
    if [ "$status" = 0 ]; then
        echo "@@ ok $((SECONDS - began)) $name"
    else
        echo "  | exit code $status"
        echo "@@ FAIL $((SECONDS - began)) $name"
    fi
}

same() {
    echo "$1: expected $2, is $3"
    [ "$2" = "$3" ]
}

# A command in the slice, as the README has it.
guarded() {
    systemd-run --slice=agent.slice --property=EnvironmentFile=-/run/agentgate/agent.env \
        --wait --pipe --quiet --collect "$@"
}

page() { curl -sS --max-time 40 -o /dev/null -w '%{http_code}' "$@"; }

kernel() {
    uname -r
    cat /sys/kernel/security/lsm; echo
    grep -qw bpf /sys/kernel/security/lsm
    test -e /sys/kernel/btf/vmlinux
}

internet() {
    same "without a gate" 200 "$(page --cacert /run/internet/root.pem https://open.example/)"
}

starts() {
    systemctl start $UNIT
    systemctl is-active $UNIT
    agentctl status
    agentctl deny denied.example
}

# Listeners of TCP, of DNS over UDP and over TCP, each for IPv4 and IPv6.
kept() {
    same "sockets that systemd keeps" 6 "$(systemctl show --property=NFileDescriptorStore --value $UNIT)"
    systemctl show --property=FileDescriptorStoreMax,MainPID $UNIT
    grep -E '^(Cap|NoNewPrivs|Seccomp:)' "/proc/$(systemctl show --property=MainPID --value $UNIT)/status"
}

shows() { agentctl doctor; }

caught() {
    local after; after=$(last)
    same "an allowed host" 200 "$(guarded curl -sS --max-time 40 -o /dev/null -w '%{http_code}' https://open.example/)"
    recorded "$after" 'r["kind"] == "exchange" and r["authority"]["host"] == "open.example" and r["response"]["status"] == 200 and r["subject"]["exe"] == "/usr/bin/curl" and r["subject"]["session"].startswith("run-")'
}

forbidden() {
    local before; before=$(ask arrived denied.example)
    same "a denied host" 403 "$(guarded curl -sS --max-time 40 -o /dev/null -w '%{http_code}' --resolve denied.example:443:198.51.100.30 https://denied.example/)"
    same "connections at its origin" "$before" "$(ask arrived denied.example)"
}

datagram() {
    local after; after=$(last)
    guarded python3 -c '
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("203.0.113.80", 9999))
except PermissionError:
    print("not permitted")
else:
    raise SystemExit("sent")'
    recorded "$after" 'r["kind"] == "kernel" and r["verdict"]["rule"] == "kernel:udp"'
}

by_a_user() {
    local after; after=$(last)
    useradd --create-home alice
    cd /home/alice
    HOME=/home/alice setpriv --reuid alice --regid alice --init-groups --reset-env \
        agentctl run -- sh -c 'cat /proc/self/cgroup; test -e /run/dbus/system_bus_socket && echo "a bus"; curl -sS --max-time 40 https://open.example/' | cut -c1-120 | tee /tmp/page
    grep -q '^0::/agent.slice/run-.*\.scope$' /tmp/page
    grep -q 'This is open.example.' /tmp/page
    test -S /run/dbus/system_bus_socket
    ! grep -q 'a bus' /tmp/page
    recorded "$after" 'r["kind"] == "exchange" and r["response"]["status"] == 200 and r["subject"]["uid"] != 0 and ".scope@" in r["subject"]["session"]'
}

namespace() {
    local after; after=$(last)
    guarded unshare --net sh -c '
        ip link set lo up
        for i in $(seq 200); do
            curl -sS --max-time 40 -o /dev/null -w "page: %{http_code}\n" https://open.example/ && exit 0
            sleep 0.1
        done
        exit 1' | tee /tmp/page
    grep -q 'page: 200' /tmp/page
    recorded "$after" 'r["kind"] == "exchange" and r["response"]["status"] == 200 and r["subject"]["exe"] == "/usr/bin/curl"'
}

# The template for agents as services, with something that tells what it can reach.
templated() {
    local after; after=$(last)
    useradd --create-home claude-agent
    install --mode=0644 $LAB/probe.py /home/claude-agent/probe.py
    echo "COMMAND='python3 probe.py'" > /etc/agentgate/agents/claude-agent.conf
    systemctl start agent@claude-agent
    for i in $(seq 600); do systemctl is-active --quiet agent@claude-agent || break; sleep 0.1; done
    journalctl --no-pager --quiet --output=cat --unit agent@claude-agent | tail -n 20
    same "how it ended" success "$(systemctl show --property=Result --value agent@claude-agent)"
    grep . /home/claude-agent/probe
    local line
    for line in 'AF_INET: made' 'AF_PACKET: EAFNOSUPPORT' 'AF_VSOCK: EAFNOSUPPORT' 'AF_ALG: EAFNOSUPPORT' \
        'io_uring: ENOSYS' 'capabilities: 0000000000000000' 'control socket: hidden' 'bus: hidden' \
        'page: 200'; do
        grep -qxF "$line" /home/claude-agent/probe || { echo "not said: $line"; return 1; }
    done
    recorded "$after" 'r["kind"] == "exchange" and r["response"]["status"] == 200 and r["subject"]["uid"] != 0 and r["subject"]["session"].startswith("agent@claude-agent.service@")'
}

# A service that lives as long as the slice does.
long_agent() {
    systemd-run --slice=agent.slice --unit=long-agent --quiet \
        --property=EnvironmentFile=/run/agentgate/agent.env python3 $LAB/agent.py /run/agent.sock
    for i in $(seq 300); do test -S /run/agent.sock && break; sleep 0.1; done
    same "the long agent" 200 "$(agent fetch https://open.example/)"
}

killed() {
    # However it ends: what follows wants the unit as shipped.
    trap up_again EXIT
    mkdir -p $DROP
    printf '[Service]\nRestart=no\n' > $DROP/stay-down.conf
    systemctl daemon-reload
    local before; before=$(ask arrived open.example)
    systemctl kill --signal=KILL $UNIT
    for i in $(seq 100); do systemctl is-active --quiet $UNIT || break; sleep 0.1; done
    systemctl is-active $UNIT || true
    local answer; answer=$(agent fetch https://open.example/)
    echo "without a daemon: $answer"
    [ "$answer" != 200 ]
    same "connections at the origin" "$before" "$(ask arrived open.example)"
    up_again
    same "started again" 200 "$(agent fetch https://open.example/)"
}

up_again() {
    rm -rf $DROP
    systemctl daemon-reload
    systemctl start $UNIT
}

comes_back() {
    local main; main=$(systemctl show --property=MainPID --value $UNIT)
    systemctl kill --signal=KILL $UNIT
    for i in $(seq 300); do
        [ "$(systemctl show --property=MainPID --value $UNIT)" != "$main" ] &&
            systemctl is-active --quiet $UNIT && break
        sleep 0.1
    done
    systemctl is-active $UNIT
    same "after its return" 200 "$(agent fetch https://open.example/)"
}

handed_over() {
    agent hammer https://open.example/
    for i in 1 2 3; do systemctl restart $UNIT; done
    same "after three restarts" 200 "$(agent fetch https://open.example/)"
    local came; came=$(agent stop)
    echo "an allowed host meanwhile: $came"
    python3 -c 'import sys; came = eval(sys.argv[1]); sys.exit(set(came) != {"200"})' "$came"
}

no_gap() {
    local before; before=$(ask arrived denied.example)
    agent hammer http://198.51.100.30/ denied.example
    systemctl restart $UNIT
    systemctl kill --signal=KILL $UNIT
    systemctl start $UNIT
    systemctl reload $UNIT
    local came; came=$(agent stop)
    echo "a denied host meanwhile: $came"
    python3 -c 'import sys; came = eval(sys.argv[1]); sys.exit(not came or "200" in came)' "$came"
    same "connections at its origin" "$before" "$(ask arrived denied.example)"
}

stopped() {
    local before; before=$(ask arrived open.example)
    systemctl stop $UNIT
    local answer; answer=$(agent fetch https://open.example/)
    echo "stopped: $answer"
    [ "$answer" != 200 ]
    same "connections at the origin" "$before" "$(ask arrived open.example)"
    systemctl start $UNIT
    same "started again" 200 "$(agent fetch https://open.example/)"
}

selftest() {
    local status=0
    agentctl selftest --json > /tmp/selftest.json || status=$?
    python3 $LAB/ask.py selftest /tmp/selftest.json
    return $status
}

balanced() { agentctl audit reconcile; }

detached() {
    systemctl stop long-agent.service $UNIT
    same "pinned" yes "$(pinned)"
    agentctl detach --yes
    same "pinned after that" no "$(pinned)"
    mkdir -p /sys/fs/cgroup/agent.slice/free
    same "from the cgroup then" 200 "$(
        echo $BASHPID > /sys/fs/cgroup/agent.slice/free/cgroup.procs
        page --cacert /run/internet/root.pem https://open.example/)"
}

pinned() { find /sys/fs/bpf/agentgate -type f 2>/dev/null | grep -q . && echo yes || echo no; }

# A restart takes seconds here, so few of them: what many show is the native lab's business.
lab() { $LAB/xtask lab suite --restarts 3; }

root_test() { "$1" --ignored --test-threads=1; }

check "the kernel has BPF LSM and type information" kernel
check "the small internet answers without a gate" internet
check "systemctl start agentgated" starts
check "sockets in systemd's store" kept
check "agentctl doctor" shows
check "a command in the slice is caught and recorded" caught
check "a denied host is refused, and nothing arrives" forbidden
check "a datagram is refused and recorded" datagram
check "agentctl run by an ordinary user, in a scope" by_a_user
check "a network namespace of the agent's own" namespace
check "agent@.service as shipped" templated
check "an agent as a service" long_agent
check "kill -9: refused; started: flows again" killed
check "kill -9: systemd brings it back" comes_back
check "restarts are not noticed by an allowed connection" handed_over
check "kill, restart and reload let nothing through" no_gap
check "stopped: refused; started: flows again" stopped
check "agentctl selftest: nothing leaks" selftest
check "agentctl audit reconcile: kernel and log agree" balanced
journalctl --no-pager --unit $UNIT | tail -n 60 | sed 's/^/journal: /'
check "stopped and detached" detached
for test in $LAB/test-*; do
    check "the tests that need root: ${test##*/test-}" root_test "$test"
done
check "the lab suite" lab
echo "@@ end"
