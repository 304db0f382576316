#!/usr/bin/env python3
"""A second verifier of agentgate's exports and proofs, written from docs/record.md alone.

    verify.py [--key KEY]... [--checkpoints FILE] [EXPORT]

EXPORT is a file, or standard input. KEY is a PEM file or 64 hex digits. Prints a verdict as one JSON
object. Exit status 0: whole. 1: not whole. 2: it could not be told.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys

import canonical
import ed25519

PERIOD = 256
ZEROS = bytes(32)
FINDINGS = 200
SPKI = bytes.fromhex("302a300506032b6570032100")


class CannotTell(Exception):
    """What was given is nothing a verdict can be made of."""


class Fault(Exception):
    """A line that is not what the page says: (what, detail)."""

    def __init__(self, what, detail):
        super().__init__(detail)
        self.what = what


# --- fields of a line -------------------------------------------------------


def unsigned(line, name):
    value = line.get(name)
    if type(value) is not int or not 0 <= value < 2**64:
        raise Fault("unreadable", f"`{name}` is no number of 64 bits")
    return value


def time(line, name):
    value = line.get(name)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise Fault("unreadable", f"`{name}` is no time")
    return value


def text(line, name):
    value = line.get(name)
    try:
        value.encode("utf-8")
    except (AttributeError, UnicodeEncodeError) as error:
        raise Fault("unreadable", f"`{name}` is no text") from error
    return value


def hexed(line, name, length):
    value = line.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]*", value) or len(value) != 2 * length:
        raise Fault("unreadable", f"`{name}` is not {length} bytes in lower case hex")
    return bytes.fromhex(value)


def based(line, name):
    try:
        return base64.b64decode(line[name].encode("ascii"), validate=True)
    except (KeyError, AttributeError, UnicodeEncodeError, binascii.Error) as error:
        raise Fault("unreadable", f"`{name}` is not base64") from error


def u64(value):
    return value.to_bytes(8, "little")


def i64(value):
    return value.to_bytes(8, "little", signed=True)


# --- what is hashed ---------------------------------------------------------


def digest_of(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def first_link(log):
    return hashlib.sha256(b"agentgate log 1\n" + log).digest()


def next_link(link, digest):
    return hashlib.sha256(b"\x01" + link + digest).digest()


# --- keys -------------------------------------------------------------------


class Keys:
    """The key statements of a log, and which of the keys are trusted."""

    def __init__(self, log, statements, given, report):
        self.log = log
        self.report = report
        self.statements = []
        pairs = []
        if not isinstance(statements, list):
            raise Fault("unreadable", "`keys` is no list")
        for line in statements:
            pairs += self.read(line)
        if not self.statements:
            report.find("statement", "the log names no key")
        self.trusted = set(given)
        if not given and self.statements:
            self.trusted.add(self.statements[0][2])
            report.notes.append("no key was given: the first that the log names is believed")
        while True:
            more = {k for pair in pairs if self.trusted & set(pair) for k in pair} - self.trusted
            if not more:
                break
            self.trusted |= more

    def read(self, line):
        """Takes a statement in; the pair of keys that vouch for each other, if it is signed by both."""
        report = self.report
        if not isinstance(line, dict):
            raise Fault("unreadable", "a key statement is no object")
        entries, key = unsigned(line, "entries"), hexed(line, "key", 32)
        link, previous = hexed(line, "link", 32), None
        if line.get("previous") is not None:
            previous = hexed(line, "previous", 32)
        before = self.statements[-1] if self.statements else None
        if previous != (before[2] if before else None) or (before and entries < before[0]):
            report.find("statement", f"the statement of key {key.hex()} does not follow the one before it")
        message = u64(entries) + link + i64(time(line, "time")) + key + (previous or ZEROS)
        message = b"agentgate key 1\n" + self.log + message
        signed = ed25519.verify(key, message, hexed(line, "signature", 64))
        if not signed:
            report.find("signature", f"the statement of key {key.hex()} is not signed by it")
        self.statements.append((entries, link, key))
        if line.get("vouched") is not None:
            if previous is None or not ed25519.verify(previous, message, hexed(line, "vouched", 64)):
                report.find("signature", f"key {key.hex()} is not vouched for by the one before it")
            elif signed:
                return [(previous, key)]
        return []

    def later(self, line):
        """A statement among the entries: what was signed before is not judged again."""
        for previous, key in self.read(line):
            if previous in self.trusted:
                self.trusted.add(key)

    def names(self, key):
        return any(named == key for _, _, named in self.statements)

    def was_in_use(self, key, since, until):
        """Whether `key` was in use when the log had from `since` to `until` entries."""
        for index, (start, _, named) in enumerate(self.statements):
            end = self.statements[index + 1][0] if index + 1 < len(self.statements) else since
            if named == key and start <= until and since <= end:
                return True
        return False

    def check(self, key, domain, body, signature, since, until):
        """Raises where the statement is not signed by a trusted key that was in use then."""
        if not ed25519.verify(key, domain + self.log + body, signature):
            raise Fault("signature", f"it is not signed by the key it names, {key.hex()}")
        if key not in self.trusted:
            raise Fault("unknown_key", f"no key that was given vouches for {key.hex()}")
        if not self.was_in_use(key, since, until):
            raise Fault("signature", f"key {key.hex()} was not in use at {since} entries")

    def check_checkpoint(self, line):
        """(entries, link) of a checkpoint whose signature holds."""
        entries, link = unsigned(line, "entries"), hexed(line, "link", 32)
        key = hexed(line, "key", 32)
        body = u64(entries) + link + i64(time(line, "time")) + key
        domain, signature = b"agentgate checkpoint 1\n", hexed(line, "signature", 64)
        self.check(key, domain, body, signature, entries, entries)
        return entries, link


def read_key(given):
    """A key from hex digits, or from a PEM file."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", given):
        return bytes.fromhex(given)
    try:
        with open(given, encoding="ascii") as file:
            lines = file.read().split("-----BEGIN PUBLIC KEY-----")[1].split("-----END PUBLIC KEY-----")[0]
        data = base64.b64decode("".join(lines.split()), validate=True)
    except (OSError, ValueError, IndexError) as error:
        raise CannotTell(f"{given} is no public key: {error}") from error
    if len(data) != 44 or not data.startswith(SPKI):
        raise CannotTell(f"{given} is no public key of Ed25519")
    return data[12:]


# --- the walk ---------------------------------------------------------------


class Report:
    def __init__(self):
        self.findings, self.notes, self.left_out = [], [], 0

    def find(self, what, detail, entry=None):
        if len(self.findings) >= FINDINGS:
            self.left_out += 1
            return
        self.findings.append({"what": what, "detail": detail, **({} if entry is None else {"entry": entry})})


class Walk:
    """The place in the log, and what was seen on the way to it."""

    def __init__(self, first, given, kept, report):
        self.report = report
        if unsigned(first, "format") != 1:
            raise Fault("unreadable", "this is not format 1")
        self.log = hexed(first, "log", 16)
        self.whole = first.get("whole")
        if type(self.whole) is not bool:
            raise Fault("unreadable", "`whole` is neither true nor false")
        self.keys = Keys(self.log, first.get("keys"), given, report)
        self.kept = []
        self.waiting = kept
        self.take_kept(False)
        self.number, self.link = 0, first_link(self.log)
        self.open = 0  # entries and digests since the last checkpoint
        self.started = False  # an entry, a digest or a checkpoint was seen
        self.doubted = False  # a link did not fit since then
        self.entries = self.checkpoints = self.bodies = 0
        self.ended = False
        self.arrive()

    def take_kept(self, all_named):
        """Takes checkpoints kept elsewhere whose keys are named; the others may be named later."""
        waiting, self.waiting = self.waiting, []
        for line in waiting:
            try:
                if not all_named and not self.keys.names(hexed(line, "key", 32)):
                    self.waiting.append(line)
                    continue
                self.kept.append(self.keys.check_checkpoint(line))
            except Fault as fault:
                self.report.find(fault.what, f"a checkpoint kept elsewhere: {fault}")

    def key(self, line):
        if unsigned(line, "entries") < self.number:
            self.report.find("statement", "the statement of a key stands after entries that it signs", self.number)
        self.keys.later(line)
        self.take_kept(False)
        self.arrive()

    def arrive(self):
        """Compares the place with what statements and checkpoints kept elsewhere say of it."""
        for entries, link, key in self.keys.statements:
            if entries == self.number and link != self.link:
                self.report.find("statement", f"key {key.hex()} began at another link", entries)
        for entries, link in self.kept:
            if entries == self.number and link != self.link:
                self.report.find("altered", "a checkpoint kept elsewhere has another link here", entries)

    def expect(self, number):
        """Says where another entry is due, and goes on from the one that came."""
        if number != self.number:
            what = "removed" if number > self.number else "moved"
            self.report.find(what, f"entry {number} stands where {self.number} is due", number)
            self.number = number

    def step(self, digest):
        if self.number % PERIOD == 0 and self.open:
            self.report.find("checkpoint", "one is due here and missing", self.number)
        self.link = next_link(self.link, digest)
        self.number += 1
        self.open += 1
        self.started = True
        self.arrive()

    def pruned(self, line):
        what = {"entries": 1, "bodies": 2}.get(text(line, "what"))
        if what is None:
            raise Fault("unreadable", "`what` is neither entries nor bodies")
        start, end = unsigned(line, "from"), unsigned(line, "to")
        from_link, to_link = hexed(line, "from_link", 32), hexed(line, "to_link", 32)
        key = hexed(line, "key", 32)
        body = bytes([what]) + u64(start) + from_link + u64(end) + to_link
        body += b"".join(u64(unsigned(line, name)) for name in ("records", "first", "last"))
        body += b"".join(i64(time(line, name)) for name in ("earliest", "latest", "time"))
        body += key + text(line, "reason").encode("utf-8")
        # A key prunes what is older than itself too: it was in use when the log had `to` entries or more.
        domain, signature = b"agentgate prune 1\n", hexed(line, "signature", 64)
        self.keys.check(key, domain, body, signature, end, 2**64)
        if self.started:
            raise Fault("statement", "a prune statement stands after an entry")
        if end < start:
            raise Fault("statement", "a prune statement ends before it begins")
        if what == 1:
            if (start, from_link) != (self.number, self.link):
                raise Fault("statement", f"a prune statement begins at {start}, not at {self.number}")
            self.number, self.link = end, to_link
            self.arrive()

    def entry(self, line):
        number, data = unsigned(line, "n"), based(line, "entry")
        self.expect(number)
        # Told once: the links after it are wrong as well, and the next checkpoint says what is right.
        if hexed(line, "prev", 32) != self.link and not self.doubted:
            self.doubted = True
            self.report.find("links", "the link before it is another than the entries give", number)
        self.step(digest_of(data))
        self.entries += 1
        try:
            fields = canonical.decode(data)
        except canonical.Malformed as error:
            self.report.find("unreadable", f"the entry: {error}", number)
            return
        for name in canonical.differences(fields, line.get("record")):
            self.report.find("altered", f"`{name}` of the record is not what the entry says", number)
        self.check_bodies(fields, line.get("bodies"), number)

    def check_bodies(self, fields, bodies, number):
        if bodies is None:
            return
        if not isinstance(bodies, dict):
            raise Fault("unreadable", "`bodies` is no object")
        for side in ("request", "response"):
            if bodies.get(side) is None:
                continue
            data, kept = based(bodies, side), canonical.kept(fields, side)
            if kept != (len(data), hashlib.sha256(data).digest()):
                self.report.find("body_altered", f"the body of the {side} is another", number)
            self.bodies += 1

    def skipped(self, line):
        number, digests = unsigned(line, "n"), based(line, "digests")
        if self.whole:
            self.report.find("removed", "entries are skipped in an export that says it is whole", number)
        self.expect(number)
        if not digests or len(digests) % 32:
            raise Fault("unreadable", "`digests` is not 32 bytes for each")
        for at in range(0, len(digests), 32):
            self.step(digests[at : at + 32])

    def checkpoint(self, line):
        entries, link = self.keys.check_checkpoint(line)
        jump = entries > self.number and not self.open and not self.whole
        if not jump and entries != self.number:
            detail = f"a checkpoint of {entries} stands where {self.number} is due"
            self.report.find("checkpoint", detail, entries)
        elif not jump and link != self.link:
            self.report.find("altered", f"the entries before {entries} are not those that were signed")
        # What is signed holds, whatever came before it: so one fault is told once.
        moved = (entries, link) != (self.number, self.link)
        self.number, self.link, self.doubted = entries, link, False
        if moved:
            self.arrive()
        self.open, self.started = 0, True
        self.checkpoints += 1

    def end(self, line):
        self.ended = True
        if unsigned(line, "entries") != self.entries:
            self.report.find("truncated", f"{line['entries']} entries were written, {self.entries} are here")

    def close(self):
        if not self.ended:
            self.report.find("truncated", "the last line is missing: the export was cut off")
        if self.open:
            self.report.find("unsigned", f"{self.open} at the end that no checkpoint covers", self.number - self.open)
        self.take_kept(True)
        said = [entries for entries, _ in self.kept] + [entries for entries, *_ in self.keys.statements]
        if self.whole and max(said, default=0) > self.number:
            self.report.find("truncated", f"a signed statement counts {max(said)} entries", self.number)

    def take(self, line):
        if self.ended:
            raise Fault("unreadable", "a line stands after the last")
        kinds = {
            "pruned": self.pruned,
            "entry": self.entry,
            "skipped": self.skipped,
            "checkpoint": self.checkpoint,
            "key": self.key,
            "end": self.end,
        }
        kind = text(line, "type")
        if kind not in kinds:
            raise Fault("unreadable", f"a line of the unknown type {kind!r}")
        kinds[kind](line)


# --- the file ---------------------------------------------------------------


def object_once(pairs):
    """An object in which no name stands twice: two readers might believe two things."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def parse(raw):
    try:
        line = json.loads(raw.decode("utf-8"), object_pairs_hook=object_once)
    except (ValueError, RecursionError) as error:
        raise Fault("unreadable", f"not JSON: {error}") from error
    if not isinstance(line, dict):
        raise Fault("unreadable", "not a JSON object")
    return line


def read_kept(path):
    """Checkpoints kept elsewhere: lines of an export, of which those of that type count."""
    if path is None:
        return []
    with open(path, "rb") as file:
        return [line for line in map(parse, file) if line.get("type") == "checkpoint"]


def walk(source, given, kept, report):
    """Reads all of `source`. Returns the Walk, or None where there is nothing to go by."""
    try:
        line = parse(source.readline())
        if line.get("type") != "log":
            raise Fault("unreadable", "not of the type `log`")
        place = Walk(line, given, kept, report)
    except Fault as fault:
        report.find(fault.what, f"line 1: {fault}")
        return None
    for count, raw in enumerate(source, start=2):
        try:
            place.take(parse(raw))
        except Fault as fault:
            report.find(fault.what, f"line {count}: {fault}")
    place.close()
    return place


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--key", action="append", default=[], help="PEM file or 64 hex digits")
    options.add_argument("--checkpoints", help="checkpoints that were kept elsewhere")
    options.add_argument("export", nargs="?", help="the file; standard input without it")
    chosen = options.parse_args()
    report = Report()
    try:
        given = [read_key(key) for key in chosen.key]
        kept = read_kept(chosen.checkpoints)
        if chosen.export is None:
            place = walk(sys.stdin.buffer, given, kept, report)
        else:
            with open(chosen.export, "rb") as source:
                place = walk(source, given, kept, report)
    except (CannotTell, Fault, OSError) as error:
        print(json.dumps({"verdict": "cannot tell", "detail": str(error)}))
        return 2
    verdict = {"verdict": "not whole" if report.findings else "whole"}
    if place is not None:
        verdict["log"] = place.log.hex()
        verdict["whole_log"] = place.whole
        for name in ("entries", "checkpoints", "bodies"):
            verdict[name] = getattr(place, name)
        verdict["to"] = place.number
    verdict |= {"findings": report.findings, "left_out": report.left_out, "notes": report.notes}
    print(json.dumps(verdict))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
