"""A host of its own for one `agentctl run`: fresh /run and /tmp with sockets in them, and a bystander.

Called in a mount namespace of its own as: host.py UID ROOT AGENTCTL FLAG... -- WORD...
The words see PLACES (JSON: name to path), BYSTANDER (a pid outside, of the same user) and HOME. What they
read from standard input comes when sockets have been made anew.
"""

import json, os, socket, subprocess, sys

split = sys.argv.index("--")
uid, root, agentctl = int(sys.argv[1]), sys.argv[2], sys.argv[3]
flags, words = sys.argv[4:split], sys.argv[split + 1:]


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


# The daemon's directory stays where it is; everything else in /run and /tmp is this host's.
mount("--bind", root, "/mnt")
mount("-t", "tmpfs", "-o", "mode=1777", "tmp", "/tmp")
os.makedirs(root, exist_ok=True)
mount("--move", "/mnt", root)
mount("-t", "tmpfs", "-o", "mode=755", "run", "/run")
runtime, home, ssh = f"/run/user/{uid}", "/tmp/home", "/tmp/elsewhere"
os.makedirs("/run/user")
for directory in (runtime, home, ssh):
    os.mkdir(directory, 0o700)
    os.chown(directory, uid, uid)
os.makedirs("/tmp/settings")
with open("/tmp/settings/20-x.conf", "w") as settings:
    settings.write("Host *\n")
if os.path.isdir("/etc/ssh/ssh_config.d"):
    mount("--bind", "/tmp/settings", "/etc/ssh/ssh_config.d")

listeners = {}


def listen(path):
    if path in listeners:
        os.unlink(path)
    if not path.startswith("\0"):
        made = os.path.dirname(path)
        if not os.path.isdir(made):
            os.makedirs(made)
            if made.startswith(runtime):
                os.chown(made, uid, uid)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    if not path.startswith("\0"):
        os.chmod(path, 0o777)
    listeners[path] = listener


places = {
    "docker": "/run/docker.sock",
    "systemd": "/run/systemd/private",
    "resolver": "/run/systemd/resolve/io.systemd.Resolve",
    "dbus": "/run/dbus/system_bus_socket",
    "session bus": f"{runtime}/bus",
    "gpg": f"{runtime}/gnupg/S.gpg-agent",
    "ssh": f"{ssh}/agent.1",
    "tmux": f"/tmp/tmux-{uid}/default",
    "gate": f"{root}/run/agentgate/enrol.sock",
    "wayland": f"{runtime}/wayland-0",
    "database": "/run/postgresql/.s.PGSQL.5432",
    "abstract": f"\0agentgate-test-{os.getpid()}",
}
later = {"podman": "/run/podman/podman.sock", "new": "/run/new.sock"}
os.symlink("/run/docker.sock", "/run/link.sock")
for name, path in places.items():
    if name != "gate":
        listen(path)
os.chown(f"/tmp/tmux-{uid}", uid, uid)
places["linked docker"] = "/run/link.sock"

user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
bystander = subprocess.Popen(user + ["sleep", "1000"])
places["bystander"] = f"/proc/{bystander.pid}/root/run/docker.sock"
environment = {
    "PATH": os.environ["PATH"],
    "HOME": home,
    "PLACES": json.dumps(places | later),
    "BYSTANDER": str(bystander.pid),
    "SSH_AUTH_SOCK": places["ssh"],
    "TMUX": places["tmux"] + ",1,0",
}
run = [agentctl, "--root", root, "run", *flags, "--"] if agentctl != "-" else []
agent = subprocess.Popen(
    user + run + words, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
)
# Unbuffered, since communicate() reads the pipe itself.
line = b""
while not line.endswith(b"\n") and (byte := agent.stdout.read(1)):
    line += byte
if line == b"ready\n":
    listen(places["docker"])
    listen(places["session bus"])
    for path in later.values():
        listen(path)
try:
    rest, _ = agent.communicate(b"go\n")
finally:
    bystander.kill()
os.write(1, line + rest)
sys.exit(agent.returncode if agent.returncode >= 0 else 128 - agent.returncode)
