"""redis-py under test. Verbs and lines: tests/clients/README.md."""

import argparse
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import kit  # noqa: E402

import redis  # noqa: E402
from redis.backoff import ConstantBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402

TIMEOUT_S = 60
RETRY_S = 120

# What differs from server to server and from moment to moment, in any shape that a client gives it.
VOLATILE = {"idle", "inactive", "time_since_delivered", "radix-tree-keys", "radix-tree-nodes", "seen-time"}


def plain(value):
    """The decoded answer as JSON can hold it; bytes keep their values."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        pairs = ((plain(key), plain(inner)) for key, inner in value.items())
        return {str(key): inner for key, inner in pairs if key not in VOLATILE}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def step(name, answer):
    """Prints what a call brought: an answer, or the first word of an error."""
    try:
        seen = plain(answer())
    except redis.ResponseError as error:
        word = str(error).split(" ")[0]
        # redis-py cuts the general code off.
        seen = {"error": word if word.isupper() else "ERR"}
    kit.say_now("step", name, json.dumps(seen))
    return seen


def connect(args, **more):
    host, port = args.address.rsplit(":", 1)
    return redis.Redis(host=host, port=int(port), protocol=args.protocol, socket_timeout=TIMEOUT_S, **more)


def later(action):
    thread = threading.Thread(target=lambda: (time.sleep(0.2), action()))
    thread.start()
    return thread


def streams(args):
    r, s, t = connect(args), args.prefix + "s", args.prefix + "t"
    step("xlen of nothing", lambda: r.xlen(s))
    step("xread of nothing", lambda: r.xread({s: "0"}))
    step("xrange of nothing", lambda: r.xrange(s))
    step("xadd nomkstream", lambda: r.xadd(s, {"value": "x"}, nomkstream=True))
    step("exists after nomkstream", lambda: r.exists(s))
    ids = []
    for n in range(10):
        ids.append(r.xadd(s, {"key": f"k{n}", "value": bytes([n, 255, 0, 10, 13]), "extra": f"größe {n}", "empty": ""}))
        time.sleep(0.002)
    step("ids rise", lambda: ids == sorted(ids, key=lambda i: tuple(map(int, i.split(b"-")))))
    step("xlen", lambda: r.xlen(s))
    step("xrange", lambda: r.xrange(s))
    step("xrange count", lambda: r.xrange(s, count=3))
    step("xrange between", lambda: r.xrange(s, min=ids[2], max=ids[5]))
    step("xrange exclusive", lambda: r.xrange(s, min=b"(" + ids[2], max=b"(" + ids[5]))
    step("xrange backwards is empty", lambda: r.xrange(s, min=ids[5], max=ids[2]))
    step("xrevrange", lambda: r.xrevrange(s))
    step("xrevrange count", lambda: r.xrevrange(s, max=ids[6], min=ids[1], count=4))
    step("xrange of a bad id", lambda: r.xrange(s, min="abc"))
    time.sleep(0.002)  # within one millisecond Redis gives entries of two streams the same id
    for n in range(3):
        r.xadd(t, {"value": f"t{n}"})
    step("xread two streams", lambda: r.xread({s: ids[7], t: "0"}))
    step("xread count", lambda: r.xread({s: "0", t: "0"}, count=2))
    step("xread at the end", lambda: r.xread({s: "$", t: "$"}))
    step("xread block in vain", lambda: r.xread({s: "$"}, block=50))
    writer = later(lambda: connect(args).xadd(t, {"key": "late", "value": "woken"}))
    step("xread block", lambda: r.xread({s: "$", t: "$"}, block=10_000))
    writer.join()
    born = args.prefix + "born"
    writer = later(lambda: connect(args).xadd(born, {"value": "first"}))
    step("xread block on a stream to come", lambda: r.xread({born: "$"}, block=10_000))
    writer.join()
    info = step("xinfo stream", lambda: r.xinfo_stream(s))
    step("xinfo has the last id", lambda: info["last-generated-id"].encode() == ids[-1])
    step("xtrim maxlen", lambda: r.xtrim(s, maxlen=6, approximate=False))
    step("xlen after xtrim", lambda: r.xlen(s))
    step("xrange after xtrim", lambda: r.xrange(s))
    step("xtrim minid", lambda: r.xtrim(s, minid=ids[7], approximate=False))
    step("xrange after minid", lambda: r.xrange(s))
    time.sleep(0.002)  # as above
    step("xadd maxlen", lambda: r.xadd(s, {"value": "a"}, maxlen=2, approximate=False))
    step("xlen after xadd maxlen", lambda: r.xlen(s))
    last = r.xadd(s, {"value": "b"})
    step("xadd minid", lambda: r.xadd(s, {"value": "c"}, minid=last, approximate=False))
    step("xrange after xadd minid", lambda: r.xrange(s))
    step("xadd about maxlen", lambda: r.xadd(s, {"value": "d"}, maxlen=1000, approximate=True))
    step("xtrim about maxlen", lambda: r.xtrim(s, maxlen=1000, approximate=True))
    step("xlen in the end", lambda: r.xlen(s))
    step("xtrim to nothing", lambda: r.xtrim(s, maxlen=0, approximate=False))
    step("an empty stream exists", lambda: [r.exists(s), r.xlen(s), r.type(s)])


def groups(args):
    r, s = connect(args), args.prefix + "s"
    step("create without a stream", lambda: r.xgroup_create(s, "g", "$"))
    step("read without a group", lambda: r.xreadgroup("g", "a", {s: ">"}))
    step("create mkstream", lambda: r.xgroup_create(s, "g", "$", mkstream=True))
    step("create twice", lambda: r.xgroup_create(s, "g", "$", mkstream=True))
    step("read an empty stream", lambda: r.xreadgroup("g", "a", {s: ">"}))
    ids = [r.xadd(s, {"key": f"k{n}", "value": f"v{n}"}) for n in range(12)]
    step("create consumer", lambda: r.xgroup_createconsumer(s, "g", "a"))
    step("create consumer twice", lambda: r.xgroup_createconsumer(s, "g", "a"))
    step("a reads", lambda: r.xreadgroup("g", "a", {s: ">"}, count=4))
    step("b reads", lambda: r.xreadgroup("g", "b", {s: ">"}, count=3))
    step("history of a", lambda: r.xreadgroup("g", "a", {s: "0"}))
    step("history of a after the second", lambda: r.xreadgroup("g", "a", {s: ids[1]}, count=1))
    step("history of c", lambda: r.xreadgroup("g", "c", {s: "0"}))
    step("pending", lambda: r.xpending(s, "g"))
    step("pending range", lambda: r.xpending_range(s, "g", "-", "+", 10))
    step("pending of b", lambda: r.xpending_range(s, "g", "-", "+", 2, consumername="b"))
    step("pending between", lambda: r.xpending_range(s, "g", ids[1], ids[4], 10))
    step("pending for an hour", lambda: r.xpending_range(s, "g", "-", "+", 10, idle=3_600_000))
    step("ack", lambda: r.xack(s, "g", ids[0], ids[1]))
    step("ack again", lambda: r.xack(s, "g", ids[0], ids[5], "1-1"))
    step("info groups", lambda: r.xinfo_groups(s))
    step("info consumers", lambda: r.xinfo_consumers(s, "g"))
    step("noack", lambda: r.xreadgroup("g", "a", {s: ">"}, count=2, noack=True))
    step("pending after noack", lambda: r.xpending(s, "g"))
    step("claim", lambda: r.xclaim(s, "g", "b", 0, [ids[2], ids[3]]))
    step("claim too young", lambda: r.xclaim(s, "g", "a", 3_600_000, [ids[2]]))
    step("claim just ids", lambda: r.xclaim(s, "g", "a", 0, [ids[3]], justid=True))
    step("claim with a count", lambda: r.xclaim(s, "g", "a", 0, [ids[2]], idle=5000, retrycount=7))
    step("claim with force", lambda: r.xclaim(s, "g", "a", 0, [ids[10]], force=True, justid=True))
    step("pending after claims", lambda: r.xpending_range(s, "g", "-", "+", 20))
    step("autoclaim", lambda: r.xautoclaim(s, "g", "c", 0, "0-0", count=2))
    step("autoclaim on", lambda: r.xautoclaim(s, "g", "c", 0, ids[4], count=10))
    step("autoclaim just ids", lambda: r.xautoclaim(s, "g", "d", 0, "0-0", justid=True))
    step("autoclaim too young", lambda: r.xautoclaim(s, "g", "a", 3_600_000, "0-0"))
    step("pending after autoclaim", lambda: r.xpending_range(s, "g", "-", "+", 20))
    r.xtrim(s, maxlen=9, approximate=False)
    step("autoclaim what is trimmed", lambda: r.xautoclaim(s, "g", "a", 0, "0-0", count=3))
    step("pending after the trim", lambda: r.xpending(s, "g"))
    step("del consumer", lambda: r.xgroup_delconsumer(s, "g", "a"))
    step("del consumer twice", lambda: r.xgroup_delconsumer(s, "g", "a"))
    writer = later(lambda: connect(args).xadd(s, {"value": "woken"}))
    r.xreadgroup("g", "e", {s: ">"})
    step("read block", lambda: r.xreadgroup("g", "e", {s: ">"}, block=10_000))
    writer.join()
    step("read block in vain", lambda: r.xreadgroup("g", "e", {s: ">"}, block=50))
    step("set id", lambda: r.xgroup_setid(s, "g", ids[9]))
    step("read after set id", lambda: r.xreadgroup("g", "f", {s: ">"}))
    step("second group", lambda: r.xgroup_create(s, "h", "0"))
    step("read of the second", lambda: r.xreadgroup("h", "a", {s: ">"}, count=2))
    step("group names", lambda: [group["name"] for group in r.xinfo_groups(s)])
    step("destroy", lambda: r.xgroup_destroy(s, "h"))
    step("destroy twice", lambda: r.xgroup_destroy(s, "h"))
    step("read of the destroyed", lambda: r.xreadgroup("h", "a", {s: ">"}))
    step("info of no group", lambda: r.xinfo_consumers(s, "h"))
    step("ack of no group", lambda: r.xack(s, "h", ids[0]))
    step("pending of no group", lambda: r.xpending(s, "h"))


def keys(args):
    r, names = connect(args), [f"{args.prefix}{n}" for n in range(5)]
    for name in names:
        r.xadd(name, {"value": "x"})
    missing = args.prefix + "missing"
    step("type", lambda: [r.type(names[0]), r.type(missing)])
    step("exists", lambda: r.exists(names[0], names[1], missing, names[0]))
    step("keys", lambda: sorted(r.keys(args.prefix + "*")))
    step("keys by class", lambda: sorted(r.keys(args.prefix + "[0-2]")))
    step("keys by one", lambda: sorted(r.keys(args.prefix + "?")))
    step("scan", lambda: sorted(set(r.scan_iter(match=args.prefix + "*", count=2))))
    step("scan streams", lambda: sorted(set(r.scan_iter(match=args.prefix + "*", _type="stream"))))
    step("scan strings", lambda: sorted(set(r.scan_iter(match=args.prefix + "*", _type="string"))))
    step("del", lambda: r.delete(names[0], names[1], missing))
    step("exists after del", lambda: r.exists(*names))
    step("xlen after del", lambda: r.xlen(names[0]))
    step("xinfo after del", lambda: r.xinfo_stream(names[0]))
    r.xadd(names[0], {"value": "anew"})
    step("after birth anew", lambda: r.xrange(names[0]))
    step("echo", lambda: r.echo("größe"))
    step("ping", r.ping)
    step("client name", lambda: [r.client_setname("kit"), r.client_getname()])
    step("wrong number of arguments", lambda: r.execute_command("XLEN"))
    step("no such command", lambda: r.execute_command("NOSUCH", "x"))


def pubsub(args):
    r, a, b = connect(args), args.prefix + "a", args.prefix + "b"
    step("publish to nobody", lambda: r.publish(a, "lost"))
    p = connect(args).pubsub()

    def next_message():
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            message = p.get_message(timeout=1)
            if message is not None:
                return message
        raise SystemExit("no message came")

    def messages(count):
        # Two patterns may be served in either order.
        return sorted((next_message() for _ in range(count)), key=lambda m: repr(sorted(m.items(), key=repr)))

    p.subscribe(a, b)
    step("subscribed", lambda: [next_message(), next_message()])
    step("published", lambda: [r.publish(a, "1"), r.publish(b, bytes([0, 255, 13, 10])), r.publish(a, "")])
    # In order within a channel; channels are logs of their own.
    step("messages", lambda: sorted((next_message() for _ in range(3)), key=lambda m: m["channel"]))
    p.psubscribe(args.prefix + "*")
    step("pattern", next_message)
    step("published to both", lambda: r.publish(a, "both"))
    step("both", lambda: messages(2))
    step("channels", lambda: sorted(r.pubsub_channels(args.prefix + "*")))
    step("numsub", lambda: r.pubsub_numsub(a, b, args.prefix + "c"))
    step("numpat", r.pubsub_numpat)
    p.ping()
    step("ping", next_message)
    p.unsubscribe(a)
    step("unsubscribed", next_message)
    step("published to the pattern", lambda: r.publish(a, "pattern"))
    step("by pattern", next_message)
    p.punsubscribe()
    step("punsubscribed", next_message)
    step("published to nobody again", lambda: r.publish(a, "x"))
    for n in range(500):
        r.publish(b, f"{n}")
    step("all in order", lambda: [next_message()["data"] for _ in range(500)])
    p.unsubscribe()
    step("unsubscribed all", next_message)
    # The connection is an ordinary one again.
    p.connection.send_command("ECHO", "free")
    step("echo after all", lambda: p.connection.read_response())


def pipeline(args):
    r, s = connect(args), args.prefix + "s"
    batch = r.pipeline(transaction=False)
    for n in range(2000):
        batch.xadd(s, {"value": f"{n}"})
        batch.echo(f"{n}")
        batch.xlen(s)
        batch.ping()
    replies = batch.execute()
    step("count", lambda: len(replies))
    step("ids", lambda: replies[0::4])
    step("echoes in order", lambda: replies[1::4] == [b"%d" % n for n in range(2000)])
    step("lengths in order", lambda: replies[2::4] == list(range(1, 2001)))
    step("pings", lambda: all(replies[3::4]))
    batch.xlen(s)
    batch.execute_command("NOSUCH")
    batch.xlen(s)
    step("an error in the middle", lambda: [isinstance(reply, redis.ResponseError) for reply in
                                            batch.execute(raise_on_error=False)])
    step("xrange", lambda: r.xrange(s))


def subscribe(args):
    p = connect(args).pubsub()
    (p.psubscribe if args.pattern else p.subscribe)(*args.channels)
    left = kit.when_stdin_closes()
    while not left.is_set():
        message = p.get_message(timeout=0.1)
        if message is None:
            continue
        if message["type"] in ("subscribe", "psubscribe"):
            kit.say_now("subscribed", message["channel"].decode())
        else:
            kit.say_now("message", message["channel"].decode(), kit.tohex(message["data"]))


def reliable(args):
    """A connection that outlives restarts of its server."""
    patience = Retry(ConstantBackoff(0.05), int(RETRY_S / 0.05))
    return connect(args, retry=patience, retry_on_error=[redis.ConnectionError, redis.TimeoutError])


def add(args):
    r = reliable(args)
    for line, text in enumerate(sys.stdin):
        kit.say_now("added", line, r.xadd(args.stream, {"value": text.rstrip("\n")}).decode())


def work(args):
    r = reliable(args)
    left = kit.when_stdin_closes()
    start = "0"
    while not left.is_set():
        answer = r.xreadgroup(args.group, args.consumer, {args.stream: start}, count=100, block=200)
        # RESP3 gives a map of pages, RESP2 a list.
        pairs = answer.items() if isinstance(answer, dict) else answer or []
        entries = [entry for _, found in pairs for entry in flat(found)]
        if not entries:
            start = ">"
            continue
        for entry, fields in entries:
            kit.say("entry", entry.decode(), kit.tohex(fields.get(b"value")))
        kit.flush()
        ids = [entry for entry, _ in entries]
        kit.say_now("acked", r.xack(args.stream, args.group, *ids))
        if start != ">":
            start = ids[-1]


def flat(found):
    """Entries of a stream, which redis-py wraps once more under RESP3."""
    return [entry for inner in found for entry in (inner if isinstance(inner, list) else [inner])]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--protocol", type=int, required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    scenario = verbs.add_parser("scenario")
    scenario.add_argument("name", choices=["streams", "groups", "keys", "pubsub", "pipeline"])
    scenario.add_argument("prefix")
    listen = verbs.add_parser("subscribe")
    listen.add_argument("--pattern", action="store_true")
    listen.add_argument("channels", nargs="+")
    verbs.add_parser("add").add_argument("stream")
    worker = verbs.add_parser("work")
    for name in ("stream", "group", "consumer"):
        worker.add_argument(name)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    globals()[given.name if given.verb == "scenario" else given.verb](given)
    kit.flush()
