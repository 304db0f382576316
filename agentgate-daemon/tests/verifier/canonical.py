"""The canonical bytes of an entry, decoded and compared with the readable record.

After the section "Canonical bytes" of docs/record.md.
"""

import ipaddress
import re


class Malformed(Exception):
    """Bytes that are not canonical, or JSON that is not of the shape the page gives."""


# --- payloads ---------------------------------------------------------------


def number_at(data, at):
    """A shortest LEB128 number of at most 64 bits, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if byte == 0 and shift:
        raise Malformed("a number is not in its shortest form")
    if value >> 64:
        raise Malformed("a number has more than 64 bits")
    return value, at


def number(data):
    value, end = number_at(data, 0)
    if end != len(data):
        raise Malformed("bytes after a number")
    return value


def signed(data):
    value = number(data)
    return (value >> 1) ^ -(value & 1)


def text(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"a text is not UTF-8: {error}") from error


def flag(data):
    if data != b"\x01":
        raise Malformed("a flag is not 1")
    return True


def identity(data):
    if len(data) != 8:
        raise Malformed("an id has not 8 bytes")
    return int.from_bytes(data, "little")


def digest(data):
    if len(data) != 32:
        raise Malformed("a digest has not 32 bytes")
    return data


def address(data):
    if len(data) not in (4, 16):
        raise Malformed("an address has neither 4 nor 16 bytes")
    return ipaddress.ip_address(data)


def socket(data):
    """(address, port, scope, flow label)."""
    if len(data) in (6, 18):
        cut, rest = len(data) - 2, (0, 0)
    elif len(data) == 26:
        cut = 16
        rest = (int.from_bytes(data[18:22], "big"), int.from_bytes(data[22:], "big"))
        if rest == (0, 0):
            raise Malformed("a socket names a scope and a flow label of 0")
    else:
        raise Malformed("a socket has the wrong length")
    return (address(data[:cut]), int.from_bytes(data[cut : cut + 2], "big"), *rest)


def pair(data):
    length, at = number_at(data, 0)
    if length > len(data) - at:
        raise Malformed("the first of a pair is cut off")
    return [text(data[at : at + length]), text(data[at + length :])]


def times(data):
    """How many events: the one number that has a field where it is 0, and none where it is 1."""
    value = number(data)
    if value == 1:
        raise Malformed("`times` is there and 1")
    return value


class Names:
    """A number that JSON shows as a name."""

    def __init__(self, *names):
        self.names = names

    def __call__(self, data):
        value = number(data)
        if not 1 <= value <= len(self.names):
            raise Malformed(f"{value} is none of {', '.join(self.names)}")
        return self.names[value - 1]


# --- structures -------------------------------------------------------------

ONE, OPT, LIST = "one", "opt", "list"


class Structure:
    """Fields by their tags: (JSON name or None, payload, ONE | OPT | LIST)."""

    def __init__(self, fields):
        self.fields = fields

    def __call__(self, data):
        found, at, before = {}, 0, 0
        while at < len(data):
            tag = data[at]
            length, start = number_at(data, at + 1)
            at = start + length
            if at > len(data):
                raise Malformed("a field is cut off")
            if not 1 <= tag <= 127:
                raise Malformed(f"{tag} is no tag")
            if tag < before:
                raise Malformed("fields are not in rising order")
            if tag in self.fields:
                name, payload, how = self.fields[tag]
                if tag == before and how != LIST:
                    raise Malformed(f"field {tag} is there twice")
                value = payload(data[start:at])
                if how == LIST:
                    found.setdefault(tag, []).append(value)
                elif how == ONE and payload in (number, text) and not value:
                    raise Malformed(f"field {tag} ({name}) is there and empty")
                else:
                    found[tag] = value
            before = tag
        return found


def numbers(first, *names):
    return {first + i: (name, number, ONE) for i, name in enumerate(names)}


def texts(first, *names):
    return {first + i: (name, text, ONE) for i, name in enumerate(names)}


BODY = Structure(
    {
        1: ("total", number, ONE),
        2: ("truncated", flag, ONE),
        3: (None, number, OPT),
        4: (None, digest, OPT),
    }
)
SUBJECT = Structure(
    {
        1: ("session", text, ONE),
        2: ("pid", number, ONE),
        3: ("uid", number, ONE),
        4: ("start", number, OPT),
        5: ("comm", text, ONE),
        6: ("exe", text, OPT),
        7: ("cmdline", text, LIST),
        8: ("ancestors", Structure({1: ("pid", number, ONE), 2: ("exe", text, ONE)}), LIST),
        9: ("cgroup", text, ONE),
        10: ("privileges", text, LIST),
    }
)
FLOW = Structure(
    {
        1: ("cookie", number, ONE),
        2: ("original", socket, ONE),
        **numbers(3, "pid", "uid", "gid"),
        6: ("comm", text, ONE),
        **numbers(7, "cgroup", "session", "netns", "connected_ns"),
    }
)
TLS = Structure(
    {
        1: ("sni", text, OPT),
        2: ("ja4", text, ONE),
        3: ("offered", text, LIST),
        4: ("ech", flag, ONE),
        5: ("version", text, OPT),
        6: ("cipher", text, OPT),
        7: ("alpn", text, OPT),
        8: ("resumed", flag, ONE),
        9: ("origin_version", text, OPT),
        10: ("origin_resumed", flag, ONE),
    }
)
SIDE = Structure(numbers(1, "messages", "bytes", "decoded", "controls", "unseen"))
WEBSOCKET = Structure(
    {
        1: ("client", SIDE, ONE),
        2: ("server", SIDE, ONE),
        3: (
            "closed",
            Structure(
                {
                    1: ("by", Names("client", "server"), ONE),
                    2: ("code", number, OPT),
                    3: ("reason", text, ONE),
                }
            ),
            OPT,
        ),
        4: ("left_out", number, ONE),
        5: ("faults", text, LIST),
    }
)
SEEN = Structure(
    {
        1: ("captured", number, ONE),
        2: ("total", number, ONE),
        3: ("decoded", number, OPT),
        4: ("truncated", flag, ONE),
        5: ("encoding", text, ONE),
        6: ("fault", text, OPT),
    }
)
FACT = Structure(
    {
        1: ("name", text, ONE),
        2: ("text", text, OPT),
        3: ("integer", signed, OPT),
        4: ("micros", signed, OPT),
    }
)
RECORD = Structure(
    {
        1: ("id", identity, ONE),
        2: ("kind", Names("flow", "exchange", "kernel", "control", "dns", "guard"), ONE),
        3: ("state", Names("open", "done", "refused", "failed", "cancelled"), ONE),
        4: ("started", signed, ONE),
        5: ("finished", signed, OPT),
        6: ("parent", number, OPT),
        7: ("subject", SUBJECT, OPT),
        8: ("flow", FLOW, OPT),
        9: ("authority", Structure({1: ("host", text, ONE), 2: ("port", number, ONE)}), OPT),
        10: ("protocol", text, ONE),
        11: (
            "verdict",
            Structure(
                {
                    1: ("action", Names("allow", "deny", "passthrough"), ONE),
                    2: ("rule", text, ONE),
                    3: ("reason", text, ONE),
                }
            ),
            OPT,
        ),
        12: (
            "flags",
            Structure(
                {
                    1: ("code", text, ONE),
                    2: ("severity", Names("info", "low", "medium", "high"), ONE),
                    3: ("evidence", text, ONE),
                }
            ),
            LIST,
        ),
        13: (
            "request",
            Structure(
                {
                    **texts(1, "method", "scheme", "target", "version"),
                    5: ("headers", pair, LIST),
                    6: ("body", BODY, ONE),
                }
            ),
            OPT,
        ),
        14: (
            "response",
            Structure(
                {
                    1: ("status", number, ONE),
                    2: ("version", text, ONE),
                    3: ("headers", pair, LIST),
                    4: ("body", BODY, ONE),
                    5: ("first_byte_us", number, ONE),
                }
            ),
            OPT,
        ),
        15: ("bytes_up", number, ONE),
        16: ("bytes_down", number, ONE),
        17: ("failure", Structure(texts(1, "blame", "code", "detail")), OPT),
        18: (
            "question",
            Structure(
                {
                    **texts(1, "name", "kind", "transport", "code"),
                    5: ("addresses", address, LIST),
                    6: ("answers", text, LIST),
                    7: ("took_us", number, ONE),
                }
            ),
            OPT,
        ),
        19: (
            "loss",
            Structure({**numbers(1, "session", "window"), **texts(3, "what", "cause")}),
            OPT,
        ),
        20: ("times", times, ONE),
        21: ("note", text, OPT),
        22: ("tls", TLS, OPT),
        23: ("websocket", WEBSOCKET, OPT),
        24: ("request_seen", SEEN, OPT),
        25: ("response_seen", SEEN, OPT),
        26: ("facts", FACT, LIST),
    }
)


def decode(data):
    """The fields of an entry by their tags. Raises Malformed."""
    fields = RECORD(data)
    if not data or data[0] != 1:
        raise Malformed("the id is not the first field")
    return fields


# --- comparison -------------------------------------------------------------


def _socket_of_json(value):
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)(?:%(\d+))?\]|([\d.]+)):(\d+)", value)
    if match is None:
        raise ValueError(value)
    six, scope, four, port = match.groups()
    return ipaddress.ip_address(six or four), int(port), int(scope or 0)


def _same_leaf(payload, expected, shown):
    if payload is address or payload is socket:
        try:
            if payload is address:
                return ipaddress.ip_address(shown) == expected
            return _socket_of_json(shown) == expected[:3]
        except (ValueError, TypeError):
            return False
    # In Python True is 1; in JSON it is not.
    return type(shown) is type(expected) and shown == expected


def _empty(payload, how):
    """What JSON may leave out because there is no field."""
    if how == LIST:
        return []
    if payload is flag:
        return False
    if payload is times:
        return 1
    if payload in (number, signed):
        return 0
    if payload is text:
        return ""
    return None


def _fact(value):
    """A fact of JSON, flat as the structure is."""
    if not isinstance(value, dict) or not isinstance(value.get("value"), dict):
        return None
    return {"name": value.get("name"), **value["value"]}


def _compare(structure, decoded, shown, where, wrong):
    if not isinstance(shown, dict):
        wrong.append(where or "record")
        return
    for tag, (name, payload, how) in structure.fields.items():
        if name is None:
            continue
        at = f"{where}.{name}" if where else name
        empty = None if how == OPT else _empty(payload, how)
        mine, theirs = decoded.get(tag, empty), shown.get(name, empty)
        if how == LIST:
            if not isinstance(theirs, list) or len(mine) != len(theirs):
                wrong.append(at)
                continue
            for index, (left, right) in enumerate(zip(mine, theirs)):
                if payload is FACT:
                    right = _fact(right)
                _compare_one(payload, left, right, f"{at}[{index}]", wrong)
        elif how == OPT and (mine is None or theirs is None):
            if mine is not theirs:
                wrong.append(at)
        else:
            _compare_one(payload, mine, theirs, at, wrong)


def _compare_one(payload, mine, theirs, at, wrong):
    if isinstance(payload, Structure):
        # A structure that is not `opt` and has no field is one of nothing but zeros.
        _compare(payload, mine or {}, {} if theirs is None else theirs, at, wrong)
    elif not _same_leaf(payload, mine, theirs):
        wrong.append(at)


def differences(decoded, shown):
    """The names of the JSON fields that do not show what the entry says."""
    wrong = []
    _compare(RECORD, decoded, shown, "", wrong)
    return wrong


def kept(decoded, side):
    """(length, digest) of the body of `side` that was kept, or None."""
    message = decoded.get({"request": 13, "response": 14}[side])
    body = (message or {}).get({"request": 6, "response": 4}[side], {})
    return (body.get(3, 0), body[4]) if 4 in body else None
