"""What every script prints of an answer, and how it finds what its argument names."""

import hashlib
import sys


def of_hop(name, value):
    """How long the connection lasts, which each hop says for itself (RFC 9110, 7.6.1)."""
    return name.lower() == "connection" and value.lower() in ("close", "keep-alive")


def head(status, reason, version, fields):
    print(version, status, reason)
    for name, value in fields:
        if name.lower() != "date" and not of_hop(name, value):
            print(f"{name}: {value}")


def body(data):
    if isinstance(data, str):
        data = data.encode()
    print(len(data), hashlib.sha256(data).hexdigest())
    print(ascii(data[:300].decode("utf-8", "replace")))


def chosen(functions):
    return functions[sys.argv[1]]
