"""The works that are measured. Each takes (context, broker, round) and returns metrics by the names of `tables.METRICS`.

loadgen drives and measures all but Kafka's own tools and confluent-kafka, for which the broker's CPU is read around the
whole run of the client, its connecting included.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import time

import brokers
import machine

GB = 1e9
MB = 1e6
# What a client may take beyond the time it is told to run.
CLIENT_SLACK_SECONDS = 90
# A closed loop ends here, before page-cache write-back becomes what is measured.
PRODUCE_BYTES_MAX = 4_000_000_000
IDLE_CONSUMERS = 100
CONSUME_TOPIC = "cmp-consume"
CONSUME_PARTITIONS = 4


@dataclasses.dataclass
class Context:
    """What all works share."""

    loadgen: pathlib.Path
    jars: pathlib.Path
    seconds: float
    durability: str
    loadgen_cpus: list
    python: str
    consume_bytes: int
    tool_messages: int
    # Starts and stops another broker of the same kind: {side name: function}.
    fresh_broker: dict = dataclasses.field(default_factory=dict)
    # The largest share of a core that loadgen took in a closed loop.
    loadgen_cores_max: float = 0.0


def produce_1k(context, broker, turn, partitions, connections):
    """(a) Messages of 1 KiB in batches of 64 KiB, as fast as it goes."""
    report = _produce(context, broker, f"cmp-a-{partitions}-{turn}", [
        "--partitions", str(partitions), "--connections", str(connections), "--message-bytes", "1KiB"])
    return {
        "MB/s": report["produce"]["mb_per_s"],
        "broker CPU s/GB": report["broker"]["s_per_gb"],
        "RSS MB": report["broker"]["rss_window_peak_bytes"] / MB,
    }


def produce_librdkafka(context, broker, turn):
    """(a2) The same through confluent-kafka at librdkafka's defaults."""
    topic, messages = f"cmp-a2-{turn}", context.tool_messages
    _create(context, broker, topic, 1)
    script = pathlib.Path(__file__).with_name("confluent_produce.py")
    before = machine.cpu_seconds(broker.pid)
    output = _run([context.python, str(script), broker.bootstrap, topic, str(messages), "1024"], 120)
    cpu_s = machine.cpu_seconds(broker.pid) - before
    _delete(context, broker, topic)
    return {"messages/s": float(output), "broker CPU s/GB": cpu_s / (messages * 1024 / GB)}


def produce_100b(context, broker, turn):
    """(b) Messages of 100 bytes."""
    report = _produce(context, broker, f"cmp-b-{turn}", ["--partitions", "1", "--message-bytes", "100"])
    return {
        "messages/s": report["produce"]["messages_per_s"],
        "broker CPU s/million": report["broker"]["s_per_million_messages"],
    }


def prepare_consume(context, broker):
    """Fills the topic of (c) and reads it once, so that it lies in the page cache."""
    _loadgen(context, broker, "produce", CONSUME_TOPIC, 120, [
        "--partitions", str(CONSUME_PARTITIONS), "--bytes", str(context.consume_bytes), "--acks", "all",
        *_topic_configs(context)])
    _loadgen(context, broker, "consume", CONSUME_TOPIC, 120, ["--exit-at-end"])


def consume_1k(context, broker, _turn):
    """(c) The same bytes over and over from the page cache."""
    report = _loadgen(context, broker, "consume", CONSUME_TOPIC, context.seconds, [
        "--rewind", "--duration", f"{context.seconds}s", "--warmup", "1s"])
    _note_loadgen(context, report)
    return {
        "MB/s": report["consume"]["mb_per_s"],
        "broker CPU s/GB": report["broker"]["s_per_gb"],
        "RSS MB": report["broker"]["rss_window_peak_bytes"] / MB,
    }


def produce_one_in_flight(context, broker, turn):
    """(d) 1,000 messages of 1 KiB a second, one a request, one request in flight, acks=1, open loop."""
    topic = f"cmp-d-{turn}"
    report = _loadgen(context, broker, "produce", topic, context.seconds, [
        "--partitions", "1", "--rate", "1000", "--batch-messages", "1", "--in-flight", "1", "--acks", "1",
        "--duration", f"{context.seconds}s", "--warmup", "1s", "--delete-topic", *_topic_configs(context)])
    latency = report["produce"]["latency_us"]
    return {
        "p50 us": latency["p50"],
        "p99 us": latency["p99"],
        "p99.9 us": latency["p99_9"],
        "broker CPU us/request": report["broker"]["us_per_request"],
    }


def kafka_tools(context, broker, turn):
    """(e) Kafka's ProducerPerformance and ConsumerPerformance: 1 KiB, 64 KiB batches, acks=all."""
    topic, messages = f"cmp-e-{turn}", context.tool_messages
    _create(context, broker, topic, 1)
    gigabytes = messages * 1024 / GB
    before = machine.cpu_seconds(broker.pid)
    output = _run(brokers.java(
        context.jars, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(messages),
        "--record-size", "1024", "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}",
        "acks=all", "batch.size=65536", "linger.ms=5", options=["-Xmx512m"]), 180)
    produce_cpu_s = machine.cpu_seconds(broker.pid) - before
    produced = re.search(rf"^{messages} records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\)", output, re.M)
    if not produced:
        raise RuntimeError(f"ProducerPerformance said: {output[-300:]}")
    before = machine.cpu_seconds(broker.pid)
    output = _run(brokers.java(
        context.jars, "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", broker.bootstrap,
        "--topic", topic, "--num-records", str(messages), "--timeout", "20000", options=["-Xmx512m"]), 180)
    consume_cpu_s = machine.cpu_seconds(broker.pid) - before
    # start, end, MB, MB/s, messages, messages/s, rebalance ms, fetch ms, fetch MB/s, fetch messages/s
    rows = [line.split(", ") for line in output.splitlines() if re.match(r"\d{4}-", line)]
    if not rows or int(rows[-1][4]) < messages:
        raise RuntimeError(f"ConsumerPerformance said: {output[-300:]}")
    _delete(context, broker, topic)
    mib = (1 << 20) / MB
    return (
        {"MB/s": float(produced[2]) * mib, "broker CPU s/GB": produce_cpu_s / gigabytes},
        {"MB/s": float(rows[-1][8]) * mib, "broker CPU s/GB": consume_cpu_s / gigabytes},
    )


def start_and_idle(context, broker, _turn):
    """(f) A fresh broker: ready after, memory when idle, CPU with consumers that wait."""
    fresh = context.fresh_broker[broker.name]()
    try:
        ready_s = fresh.start()
        topic = "cmp-f"
        _create(context, fresh, topic, 1)
        time.sleep(2)
        rss_bytes = machine.resident_bytes(fresh.pid)
        before, begun = machine.cpu_seconds(fresh.pid), time.monotonic()
        time.sleep(context.seconds)
        idle_cores = (machine.cpu_seconds(fresh.pid) - before) / (time.monotonic() - begun)
        report = _loadgen(context, fresh, "consume", topic, context.seconds, [
            "--consumers", str(IDLE_CONSUMERS), "--duration", f"{context.seconds}s", "--warmup", "2s"])
        return (
            {"ready after ms": ready_s * 1000, "RSS MB": rss_bytes / MB,
             "broker CPU % of a core": idle_cores * 100},
            {"broker CPU % of a core": report["broker"]["cores"] * 100},
        )
    finally:
        fresh.stop()


def warm_up(context, broker, seconds):
    """Every kind of work for a while: a cold JVM looks two to three times worse than it is."""
    parts = [
        (0.35, "produce", ["--partitions", "8", "--message-bytes", "1KiB", "--bytes", str(2 * PRODUCE_BYTES_MAX)]),
        (0.15, "produce", ["--partitions", "1", "--message-bytes", "100"]),
        (0.25, "produce", ["--partitions", "1", "--rate", "1000", "--batch-messages", "1", "--in-flight", "1"]),
        (0.25, "consume", ["--rewind"]),
    ]
    for index, (share, command, arguments) in enumerate(parts):
        topic = CONSUME_TOPIC if command == "consume" else f"cmp-warm-{index}"
        extra = [] if command == "consume" else ["--delete-topic", *_topic_configs(context)]
        _loadgen(context, broker, command, topic, seconds, ["--duration", f"{seconds * share}s", *arguments, *extra])


def _produce(context, broker, topic, arguments):
    os.sync()  # What the last work left dirty is not to be written during this one.
    report = _loadgen(context, broker, "produce", topic, context.seconds, [
        "--duration", f"{context.seconds}s", "--bytes", str(PRODUCE_BYTES_MAX), "--warmup", "1s",
        "--batch-bytes", "64KiB", "--acks", "all", "--delete-topic", *arguments, *_topic_configs(context)])
    _note_loadgen(context, report)
    return report


def _create(context, broker, topic, partitions):
    _loadgen(context, broker, "produce", topic, 30,
             ["--partitions", str(partitions), "--messages", "1", *_topic_configs(context)])


def _delete(context, broker, topic):
    _loadgen(context, broker, "produce", topic, 30, ["--messages", "1", "--delete-topic"])


def _topic_configs(context):
    pairs = brokers.DURABILITY[context.durability]["topic"].items()
    return [argument for key, value in pairs for argument in ("--topic-config", f"{key}={value}")]


def _note_loadgen(context, report):
    context.loadgen_cores_max = max(context.loadgen_cores_max, report["loadgen_cpu"]["cores"])


def _loadgen(context, broker, command, topic, seconds, arguments):
    line = [str(context.loadgen), command, "--bootstrap", broker.bootstrap, "--topic", topic,
            "--broker-pid", str(broker.pid), "--quiet", "--json", "-", *arguments]
    if context.loadgen_cpus:
        line += ["--pin", ",".join(map(str, context.loadgen_cpus))]
    report = json.loads(_run(line, seconds + CLIENT_SLACK_SECONDS))
    unanswered = (report["produce"] or {}).get("unfinished", 0)
    if unanswered:
        # A broker that falls silent has no throughput or latency worth a median.
        raise RuntimeError(f"{unanswered} messages had no answer 10 s after the end")
    return report


def _run(line, seconds_max):
    """The standard output of a client that must succeed."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds_max, stdin=subprocess.DEVNULL,
                          preexec_fn=brokers.die_with_parent)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{os.path.basename(line[0])} failed: {said[-1] if said else done.returncode}")
    return done.stdout
