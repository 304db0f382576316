"""Questions of the script: to the agent, to the internet's journal, to the audit log.

ask.py agent COMMAND...: what the agent answers.
ask.py arrived SITE: how many connections a site has accepted.
ask.py last: number of the newest record.
ask.py recorded AFTER EXPRESSION: waits for a record beyond AFTER for which a Python expression of `r`
holds, and prints its gist.
ask.py selftest FILE: the summary in what `agentctl selftest --json` printed, and what was not stopped.
"""

import json
import socket
import subprocess
import sys
import time


def talk(path, words):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        # The journal answers unasked, and may have closed by now.
        if words:
            s.sendall(words)
        return b"".join(iter(lambda: s.recv(65536), b""))


def records(limit):
    listed = subprocess.run(
        ["agentctl", "logs", "--json", "--limit", str(limit)], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in listed.stdout.splitlines() if line.strip()]


def holds(expression, record):
    try:
        return eval(expression, {}, {"r": record})
    except (KeyError, TypeError, IndexError):
        return False


what, *rest = sys.argv[1:]
if what == "agent":
    print(json.loads(talk("/run/agent.sock", " ".join(rest).encode() + b"\n")))
elif what == "arrived":
    journal = json.loads(talk("/run/internet/journal.sock", b""))
    print(sum(c["site"] == rest[0] for c in journal["connections"]))
elif what == "selftest":
    with open(rest[0]) as f:
        rows = [json.loads(line) for line in f]
    summary = rows.pop()["summary"]
    for row in rows:
        if row["verdict"] not in ("blocked", "captured"):
            told = {key: row[key] for key in row if key not in ("attempt", "family", "as", "verdict")}
            print(row["verdict"], row["family"], row["attempt"], row["as"], json.dumps(told)[:600])
    print("@@ note selftest:", ", ".join(f"{key} {value}" for key, value in summary.items()))
elif what == "last":
    print(max((r["id"] for r in records(1)), default=0))
elif what == "recorded":
    after, expression = int(rest[0]), rest[1]
    until = time.monotonic() + 20
    while True:
        fresh = [r for r in records(200) if r["id"] > after]
        found = [r for r in fresh if holds(expression, r)]
        if found:
            r = found[0]
            subject = r.get("subject") or {}
            print("record", r["id"], r["kind"], r["state"], (r.get("verdict") or {}).get("rule"),
                  subject.get("exe"), subject.get("session"), subject.get("uid"))
            break
        if time.monotonic() > until:
            for r in fresh:
                print(json.dumps(r)[:400])
            sys.exit(f"no record for which {expression}")
        time.sleep(0.2)
