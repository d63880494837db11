"""Works at a fixed rate or at rest: latency, starting, idling, and what grows with partitions and connections.

Each takes (context, broker, round) and returns metrics by the names of `tables.METRICS`, those of growth a list of
(how far it has grown, value).
"""

import subprocess
import time

import clients
import machine
from clients import MB

GROWTH_RATE = 10_000
GROWTH_PARTITIONS = [1, 10, 100, 1_000]
GROWTH_CONNECTIONS = [1, 100, 1_000, 10_000]
MANY_PARTITIONS = 1_000
IDLE_SECONDS = 2
GROUPS = 500
GROUP_MEMBERS = 4
GROUP_PARTITIONS = 20
# Half of what Kafka reached in end_to_end_max, rounded down.
HALF_OF_KAFKAS_RATE = 50_000
LONG_SEGMENT_BYTES = 256 << 20
LONG_RETENTION_BYTES = 2 << 30


def produce_one_in_flight(context, broker, turn, rate):
    """So many messages of 1 KiB a second, one a request, one request in flight, acks=1, open loop."""
    report = context.loadgen(broker, "produce", f"cmp-one-{rate}-{turn}", context.seconds, [
        "--partitions", "1", "--rate", str(rate), "--batch-messages", "1", "--in-flight", "1", "--acks", "1",
        *_timed(context)])
    return {
        **clients.latency_metrics(report["produce"]["latency_us"]),
        "broker CPU us/request": report["broker"]["us_per_request"],
    }


def end_to_end(context, broker, turn, rate):
    """From the intended send to the reading, open loop."""
    report = context.loadgen(broker, "both", f"cmp-end-{rate}-{turn}", context.seconds, [
        "--partitions", "4", "--consumers", "1", "--rate", str(rate), "--acks", "1", *_timed(context)])
    return {
        **clients.latency_metrics(report["consume"]["end_to_end_us"]),
        "broker CPU % of a core": report["broker"]["cores"] * 100,
    }


def end_to_end_max(context, broker, turn):
    """As many as go through while one consumer reads them: what half of the maximum rate is half of."""
    report = context.loadgen(broker, "both", f"cmp-end-max-{turn}", context.seconds, [
        "--partitions", "4", "--consumers", "1", "--acks", "1", *_timed(context)])
    return {
        "messages/s": report["produce"]["messages_per_s"],
        "messages/s read": report["consume"]["messages_per_s"],
        "broker CPU % of a core": report["broker"]["cores"] * 100,
    }


def end_to_end_long(context, broker, turn, rate, seconds):
    """The same for so long that the kernel writes back all the time; retention keeps the disk from filling."""
    report = context.loadgen(broker, "both", f"cmp-long-{turn}", seconds, [
        "--partitions", "4", "--consumers", "1", "--rate", str(rate), "--acks", "1", "--duration", f"{seconds}s",
        "--warmup", "2s", "--delete-topic", "--topic-config", f"segment.bytes={LONG_SEGMENT_BYTES}",
        "--topic-config", f"retention.bytes={LONG_RETENTION_BYTES}", *context.topic_configs()])
    return {
        **clients.latency_metrics(report["consume"]["end_to_end_us"]),
        "broker CPU % of a core": report["broker"]["cores"] * 100,
        **clients.memory_metrics(report),
    }


def produce_synced(context, broker, turn, partitions, connections):
    """Each producer has one message of 1 KiB in flight, and is answered when it is on the disk."""
    topic = f"cmp-sync-{partitions}-{connections}-{turn}"
    report = context.loadgen(broker, "produce", topic, context.seconds, [
        "--partitions", str(partitions), "--connections", str(connections), "--in-flight", "1",
        "--batch-messages", "1", "--message-bytes", "1KiB", "--acks", "all", "--topic-config", "flush.messages=1",
        "--duration", f"{context.seconds}s", "--warmup", "1s", "--delete-topic"])
    latency = report["produce"]["latency_us"]
    return {
        "requests/s": report["produce"]["requests_per_s"],
        "broker CPU us/request": report["broker"]["us_per_request"],
        "p50 us": latency["p50"],
        "p99 us": latency["p99"],
    }


def create_partitions(context, broker, turn):
    """From the request that creates a topic until each of its partitions has taken a message."""
    topic, begun = f"cmp-create-{turn}", time.monotonic()
    context.loadgen(broker, "produce", topic, 60, [
        "--partitions", str(MANY_PARTITIONS), "--messages", str(MANY_PARTITIONS), "--batch-messages", "1",
        "--message-bytes", "100", *context.topic_configs()])
    milliseconds = (time.monotonic() - begun) * 1_000
    context.delete(broker, topic)
    return {"ms": milliseconds}


def start_and_idle(context, broker, _turn, polls=(100, 1_000)):
    """A fresh broker: ready after, memory when idle, CPU with consumers that wait."""
    fresh = context.fresh_broker[broker.name]()
    try:
        ready_s = fresh.start()
        topic = "cmp-idle"
        context.create(fresh, topic, 1)
        time.sleep(IDLE_SECONDS)
        rss_bytes = machine.resident_bytes(fresh.pid)
        before, begun = machine.cpu_seconds(fresh.pid), time.monotonic()
        time.sleep(context.seconds)
        idle_cores = (machine.cpu_seconds(fresh.pid) - before) / (time.monotonic() - begun)
        metrics = [{"ready after ms": ready_s * 1000, "RSS MB": rss_bytes / MB,
                    "broker CPU % of a core": idle_cores * 100}]
        for consumers in polls:
            report = context.loadgen(fresh, "consume", topic, context.seconds, [
                "--consumers", str(consumers), "--duration", f"{context.seconds}s", "--warmup", "2s"])
            metrics.append({"broker CPU % of a core": report["broker"]["cores"] * 100,
                            **clients.memory_metrics(report)})
        return tuple(metrics)
    finally:
        fresh.stop()


def start_with(context, broker, _turn, partitions):
    """A broker that was stopped cleanly starts again on what it has."""
    fresh = context.fresh_broker[broker.name]()
    try:
        fresh.start()
        context.create(fresh, "cmp-start", partitions)
        fresh.halt()
        ready_s = fresh.launch()
        return {"ready after ms": ready_s * 1000, "RSS MB": machine.resident_bytes(fresh.pid) / MB}
    finally:
        fresh.stop()


def groups(context, broker, _turn, protocol):
    """Groups whose members heartbeat every 3 s and commit every 5 s; then how fast all that was committed is back."""
    fresh = context.fresh_broker[broker.name]()
    try:
        fresh.start()
        which = ["--groups", str(GROUPS), "--partitions", str(GROUP_PARTITIONS)]
        report = context.groups(fresh, "groups", context.seconds, [
            *which, "--members", str(GROUP_MEMBERS), "--protocol", protocol, "--duration", f"{context.seconds}s",
            "--broker-pid", str(fresh.pid)])
        fresh.halt()
        begun = time.monotonic()
        fresh.launch()
        context.groups(fresh, "committed", 30, which)
        back_s = time.monotonic() - begun
        latency = clients.latency_metrics(report["heartbeats"]["latency_us"])
        return {
            **{f"heartbeat {name}": latency[name] for name in ("p50 us", "p99 us", "p99.9 us")},
            "commit p99 us": report["commits_us"]["p99"],
            "settled after ms": report["settled_after_ms"],
            "broker CPU % of a core": report["broker"]["cores"] * 100,
            "kB a member": report["broker"]["bytes_per_member"] / 1_000,
            "all offsets back after ms": back_s * 1_000,
        }
    finally:
        fresh.stop()


def start_killed(context, broker, _turn, log_bytes):
    """A broker that was killed under load starts again on so many bytes of log, and has them."""
    fresh = context.fresh_broker[broker.name]()
    try:
        fresh.start()
        context.loadgen(fresh, "produce", "cmp-killed", 300, [
            *context.stamps(),
            "--partitions", "8", "--connections", "4", "--batch-bytes", "900KiB", "--bytes", str(log_bytes),
            "--acks", "all", *context.topic_configs()])
        fresh.kill()
        ready_s = fresh.launch()
        report = context.loadgen(fresh, "consume", "cmp-killed", 300, ["--exit-at-end"])
        if report["consume"]["wire_bytes"] < log_bytes:
            raise RuntimeError(f"{report['consume']['wire_bytes']} bytes are left of {log_bytes}")
        return {"ready after ms": ready_s * 1000}
    finally:
        fresh.stop()


def grow_partitions(context, broker, turn):
    """CPU of a message as its topic has more partitions."""
    return [(count, _request_cost(context, broker, f"cmp-grow-p{count}-{turn}", count, 4))
            for count in GROWTH_PARTITIONS]


def grow_connections(context, broker, turn):
    """CPU of a message as more connections share the rate."""
    return [(count, _request_cost(context, broker, f"cmp-grow-c{count}-{turn}", 8, count))
            for count in GROWTH_CONNECTIONS if count <= context.connections_max]


def _request_cost(context, broker, topic, partitions, connections):
    """CPU of a request, or nothing if this point failed; the others are worth having all the same."""
    try:
        context.create(broker, topic, partitions)
        report = context.loadgen(broker, "produce", topic, context.seconds + 60, [
            "--connections", str(connections), "--rate", str(GROWTH_RATE), "--batch-messages", "1",
            "--message-bytes", "100", "--acks", "1", *_timed(context)])
        return report["broker"]["us_per_request"]
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        context.note(f"{partitions} partitions, {connections} connections: {error}")
        return None


def _timed(context):
    return ["--duration", f"{context.seconds}s", "--warmup", "1s", "--delete-topic", *context.topic_configs()]
