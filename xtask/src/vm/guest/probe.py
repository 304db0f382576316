"""What an agent of agent@.service can make and reach, a line each, in `probe` of its directory."""

import ctypes
import errno
import os
import socket
import urllib.request


def made(family, kind):
    try:
        socket.socket(family, kind).close()
        return "made"
    except OSError as error:
        return errno.errorcode[error.errno]


def ring():
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    made = libc.syscall(425, 1, parameters)
    return "made" if made >= 0 else errno.errorcode[ctypes.get_errno()]


def status(key):
    with open("/proc/self/status") as lines:
        return next(line.split()[1] for line in lines if line.startswith(key + ":"))


def hidden(path):
    return "there" if os.path.exists(path) else "hidden"


with open("probe", "w") as told:
    for name, kind in [
        ("AF_INET", socket.SOCK_STREAM),
        ("AF_PACKET", socket.SOCK_RAW),
        ("AF_VSOCK", socket.SOCK_STREAM),
        ("AF_ALG", socket.SOCK_SEQPACKET),
    ]:
        print(f"{name}: {made(getattr(socket, name), kind)}", file=told)
    print("io_uring:", ring(), file=told)
    print("capabilities:", status("CapEff"), file=told)
    print("control socket:", hidden("/run/agentgate/control.sock"), file=told)
    print("bus:", hidden("/run/dbus/system_bus_socket"), file=told)
    with urllib.request.urlopen("https://open.example/", timeout=40) as page:
        print("page:", page.status, file=told)
