"""grpcio, with bytes for messages."""

import threading
import time

import grpc
import shown

METADATA = (("x-asked", "yes"), ("x-raw-bin", b"\x00\x01\xff"))


def channel():
    return grpc.secure_channel("open.example:443", grpc.ssl_channel_credentials())


def fields(metadata):
    return sorted((name, value) for name, value in metadata or () if name != "date")


def method(shape, name):
    return getattr(channel(), shape)(f"/lab.Echo/{name}", lambda message: message, lambda message: message)


def unary():
    call = method("unary_unary", "Unary")
    answer, done = call.with_call(b"hello" * 100, metadata=METADATA, timeout=20)
    shown.body(answer)
    print(fields(done.initial_metadata()), fields(done.trailing_metadata()), done.code())


def large():
    call = method("unary_unary", "Unary")
    shown.body(call(bytes(range(256)) * 8000, timeout=20))


def compressed():
    call = method("unary_unary", "Unary")
    shown.body(call(b"again and " * 1000, timeout=20, compression=grpc.Compression.Gzip))


def down():
    for message in method("unary_stream", "Down")(b"20", timeout=20):
        print(message)


def both():
    """Each message is sent only when the one before has come back."""
    turn = threading.Semaphore(1)

    def messages():
        for number in range(10):
            turn.acquire()
            yield f"message {number}".encode() * 100

    for message in method("stream_stream", "Both")(messages(), timeout=20):
        shown.body(message)
        turn.release()


def fails():
    try:
        method("unary_unary", "Fail")(b"x", timeout=20)
    except grpc.RpcError as error:
        print(error.code(), error.details(), fields(error.trailing_metadata()))


def deadline():
    began = time.monotonic()
    try:
        method("unary_unary", "Late")(b"x", timeout=1)
    except grpc.RpcError as error:
        # The library words it in one of two ways, by whether its timer or its stream was first.
        print(error.code(), "Deadline Exceeded" in error.details(), 0.9 < time.monotonic() - began < 3)


def cancel():
    call = method("unary_stream", "Down")(b"1000", timeout=20)
    for number, message in enumerate(call):
        print(message)
        if number == 2:
            call.cancel()
            break
    print(call.code())
    # The channel ends with the process; the reset must be on its way before.
    time.sleep(0.3)


def many():
    """Several calls at once on one connection."""
    call = method("unary_unary", "Unary")
    calls = [call.future(f"call {number}".encode() * 1000, timeout=20) for number in range(16)]
    for future in calls:
        shown.body(future.result())


shown.chosen(globals())()
