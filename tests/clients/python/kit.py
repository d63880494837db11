"""What the three Python client programs share: the verbs' arguments and the lines they read and write.

The contract is written in tests/clients/README.md. Everything here is about text; nothing talks to a server.
"""

import argparse
import os
import sys
import threading
from collections import namedtuple

Record = namedtuple("Record", "timestamp key value headers")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)

    create = verbs.add_parser("create")
    create.add_argument("topics", type=lambda topics: topics.split(","))
    create.add_argument("partitions", type=int)
    create.add_argument("configs", nargs="*", help="key=value")

    produce = verbs.add_parser("produce")
    produce.add_argument("--idempotent", action="store_true")
    produce.add_argument("--plain", action="store_true")
    produce.add_argument("targets", nargs="+", help="TOPIC:CODEC")

    consume = verbs.add_parser("consume")
    consume.add_argument("--committed", action="store_true")
    consume.add_argument("topics", nargs="+")

    member = verbs.add_parser("member")
    member.add_argument("--count", type=int)
    member.add_argument("--modern", action="store_true")
    member.add_argument("group")
    member.add_argument("topic")

    transact = verbs.add_parser("transact")
    for name in ["id", "group", "input", "output"]:
        transact.add_argument(name)
    transact.add_argument("count", type=int)

    admin = verbs.add_parser("admin")
    admin.add_argument("name")
    return parser.parse_args()


def unhex(field):
    return None if field == "-" else bytes.fromhex(field)


def tohex(data):
    return "-" if data is None else bytes(data).hex()


def records_in():
    """Records from standard input, as they arrive."""
    for line in sys.stdin:
        timestamp, key, value, headers = line.rstrip("\n").split("\t")
        pairs = [header.split(":") for header in headers.split(",") if header]
        yield Record(int(timestamp), unhex(key), unhex(value), [(name, unhex(data)) for name, data in pairs])


def topics_and_codecs(targets):
    return [target.rsplit(":", 1) for target in targets]


_write_lock = threading.Lock()


def say(*fields):
    with _write_lock:
        sys.stdout.write("\t".join(str(field) for field in fields) + "\n")


def flush():
    with _write_lock:
        sys.stdout.flush()


def say_record(topic, partition, offset, timestamp, key, value, headers):
    pairs = ",".join(f"{name}:{tohex(data)}" for name, data in headers or [])
    say("record", topic, partition, offset, timestamp, tohex(key), tohex(value), pairs)


def say_now(*fields):
    say(*fields)
    flush()


def when_stdin_closes():
    """An event that is set when the harness closes our standard input: the polite request to leave."""
    closed = threading.Event()

    def wait():
        while os.read(0, 4096):
            pass
        closed.set()

    threading.Thread(target=wait, daemon=True).start()
    return closed


def check(condition, message):
    """An assertion that survives `python -O` and says what was seen."""
    if not condition:
        raise SystemExit(f"check failed: {message}")


def equal(seen, expected, what):
    check(seen == expected, f"{what}: expected {expected!r}, found {seen!r}")


def step(name):
    say_now("step", name)
