"""requests: what its argument names."""

import sys

import requests


def show(answer):
    print(answer.status_code, answer.reason, answer.raw.version)
    for name, value in answer.headers.items():
        if name.lower() != "date":
            print(f"{name}: {value}")
    print(answer.text)


def get():
    show(requests.get("https://open.example/echo", params={"q": "ä b"}, timeout=20))


{"get": get}[sys.argv[1]]()
