"""What every script prints of an answer, and how it finds what its argument names."""

import hashlib
import sys


def head(status, reason, version, fields):
    print(version, status, reason)
    for name, value in fields:
        if name.lower() != "date":
            print(f"{name}: {value}")


def body(data):
    if isinstance(data, str):
        data = data.encode()
    print(len(data), hashlib.sha256(data).hexdigest())
    print(data[:300].decode("utf-8", "replace"))


def chosen(functions):
    return functions[sys.argv[1]]
