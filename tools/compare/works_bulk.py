"""Works that move as many bytes or requests as they can: produce, consume, Kafka's own tools, the bare loop.

Each takes (context, broker, round) and returns metrics by the names of `tables.METRICS`. loadgen drives and measures all
but Kafka's own tools and confluent-kafka, for which the broker's CPU is read around the whole run of the client, its
connecting included.
"""

import pathlib
import re

import brokers
import clients
import machine
from clients import GB, MB

# A closed loop ends here, before page-cache write-back becomes what is measured.
PRODUCE_BYTES_MAX = 4_000_000_000
CONSUME_TOPIC = "cmp-consume"
CONSUME_PARTITIONS = 4
# Small enough that most of a consumed topic is sealed.
CONSUME_SEGMENT_BYTES = 64 << 20
TAIL_RATE = 100_000
TAIL_LINGER_MS = 5
# Of a file that is to be cold, so much may have stayed in memory.
WARM_SHARE_MAX = 0.05


def produce_1k(context, broker, turn, partitions, connections, acks="all", batch_bytes="64KiB"):
    """Messages of 1 KiB as fast as it goes."""
    topic = f"cmp-1k-{partitions}-{connections}-{acks}-{batch_bytes}-{turn}"
    report = context.produce_closed(broker, topic, [
        "--partitions", str(partitions), "--connections", str(connections), "--message-bytes", "1KiB",
        "--batch-bytes", batch_bytes, "--acks", acks], PRODUCE_BYTES_MAX)
    return {
        "MB/s": report["produce"]["mb_per_s"],
        "broker CPU s/GB": report["broker"]["s_per_gb"],
        **clients.memory_metrics(report),
    }


def produce_librdkafka(context, broker, turn, partitions):
    """The same through confluent-kafka at librdkafka's defaults."""
    if not context.python:
        raise RuntimeError("no python with confluent-kafka: tests/clients/install, or give --python")
    topic, messages = f"cmp-librdkafka-{partitions}-{turn}", context.tool_messages
    context.create(broker, topic, partitions)
    script = pathlib.Path(__file__).with_name("confluent_produce.py")
    before = machine.cpu_seconds(broker.pid)
    output = clients.run([context.python, str(script), broker.bootstrap, topic, str(messages), "1024"], 120)
    cpu_s = machine.cpu_seconds(broker.pid) - before
    context.delete(broker, topic)
    return {
        "messages/s": float(output),
        "MB/s": float(output) * 1024 / MB,
        "broker CPU s/GB": cpu_s / (messages * 1024 / GB),
    }


def produce_100b(context, broker, turn):
    """Messages of 100 bytes."""
    report = context.produce_closed(broker, f"cmp-100b-{turn}", [
        "--partitions", "1", "--message-bytes", "100", "--batch-bytes", "64KiB", "--acks", "all"], PRODUCE_BYTES_MAX)
    return {
        "messages/s": report["produce"]["messages_per_s"],
        "broker CPU s/million": report["broker"]["s_per_million_messages"],
    }


def produce_requests(context, broker, turn):
    """One record a request, one request in flight on each of many connections: what a request costs."""
    report = context.produce_closed(broker, f"cmp-requests-{turn}", [
        "--partitions", "8", "--connections", "100", "--in-flight", "1", "--batch-messages", "1",
        "--message-bytes", "100", "--acks", "1"], PRODUCE_BYTES_MAX)
    return {
        "requests/s": report["produce"]["requests_per_s"],
        "broker CPU us/request": report["broker"]["us_per_request"],
        "p50 us": report["produce"]["latency_us"]["p50"],
        "p99 us": report["produce"]["latency_us"]["p99"],
    }


def prepare_consume(context, broker):
    """Fills the topic of `consume_sealed` and reads it once, so that it lies in the page cache."""
    _fill(context, broker, CONSUME_TOPIC)
    context.loadgen(broker, "consume", CONSUME_TOPIC, 120, ["--exit-at-end"])


def consume_sealed(context, broker, _turn):
    """The same bytes over and over from the page cache."""
    report = context.loadgen(broker, "consume", CONSUME_TOPIC, context.seconds, [
        "--rewind", "--duration", f"{context.seconds}s", "--warmup", "1s"])
    context.note_loadgen(report)
    return _consumed(report)


def consume_cold(context, broker, turn):
    """A topic that nobody has read, from the disk."""
    topic = f"cmp-cold-{turn}"
    _fill(context, broker, topic)
    stayed_bytes, all_bytes = machine.drop_cached(broker.segment_files(topic))
    if all_bytes < context.consume_bytes or stayed_bytes > WARM_SHARE_MAX * all_bytes:
        raise RuntimeError(f"of {all_bytes} bytes {stayed_bytes} stayed in memory")
    context.settle()
    try:
        return _consumed(context.loadgen(broker, "consume", topic, 120, ["--exit-at-end"]))
    finally:
        context.delete(broker, topic)


def consume_tail(context, broker, turn):
    """Consumers at the tail while a producer writes at a rate; CPU is that of writing and reading together."""
    report = context.loadgen(broker, "both", f"cmp-tail-{turn}", context.seconds, [
        "--partitions", str(CONSUME_PARTITIONS), "--consumers", str(CONSUME_PARTITIONS), "--rate", str(TAIL_RATE),
        "--linger-ms", str(TAIL_LINGER_MS), "--duration", f"{context.seconds}s", "--warmup", "1s", "--delete-topic", *context.topic_configs()])
    latency = report["consume"]["end_to_end_us"]
    return {
        "MB/s": report["consume"]["mb_per_s"],
        "broker CPU s/GB": report["broker"]["s_per_gb"],
        "p50 us": latency["p50"],
        "p99 us": latency["p99"],
        **clients.memory_metrics(report),
    }


def kafka_tools(context, broker, turn):
    """Kafka's ProducerPerformance and ConsumerPerformance."""
    topic, messages = f"cmp-tools-{turn}", context.tool_messages
    context.create(broker, topic, 1)
    gigabytes = messages * 1024 / GB
    before = machine.cpu_seconds(broker.pid)
    output = clients.run(brokers.java(
        context.jars, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", str(messages),
        "--record-size", "1024", "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}",
        "acks=all", "batch.size=65536", "linger.ms=5", options=["-Xmx512m"]), 180)
    produce_cpu_s = machine.cpu_seconds(broker.pid) - before
    produced = re.search(rf"^{messages} records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\)", output, re.M)
    if not produced:
        raise RuntimeError(f"ProducerPerformance said: {output[-300:]}")
    before = machine.cpu_seconds(broker.pid)
    output = clients.run(brokers.java(
        context.jars, "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", broker.bootstrap,
        "--topic", topic, "--num-records", str(messages), "--timeout", "20000", options=["-Xmx512m"]), 180)
    consume_cpu_s = machine.cpu_seconds(broker.pid) - before
    # start, end, MB, MB/s, messages, messages/s, rebalance ms, fetch ms, fetch MB/s, fetch messages/s
    rows = [line.split(", ") for line in output.splitlines() if re.match(r"\d{4}-", line)]
    if not rows or int(rows[-1][4]) < messages:
        raise RuntimeError(f"ConsumerPerformance said: {output[-300:]}")
    context.delete(broker, topic)
    mib = (1 << 20) / MB
    return (
        {"MB/s": float(produced[2]) * mib, "broker CPU s/GB": produce_cpu_s / gigabytes},
        {"MB/s": float(rows[-1][8]) * mib, "broker CPU s/GB": consume_cpu_s / gigabytes},
    )


def bare_loop(context, _broker, _turn, arguments=()):
    """What is left when a broker is taken away: receive, check CRC-32C, write."""
    report = context.bare([
        "--bytes", str(PRODUCE_BYTES_MAX), "--duration", f"{context.seconds}s", "--warmup", "1s", *arguments])
    context.note_loadgen(report)
    return {"MB/s": report["produce"]["mb_per_s"], "broker CPU s/GB": report["broker"]["s_per_gb"]}


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
        extra = [] if command == "consume" else ["--delete-topic", *context.topic_configs()]
        context.loadgen(broker, command, topic, seconds, ["--duration", f"{seconds * share}s", *arguments, *extra])


def _fill(context, broker, topic):
    context.loadgen(broker, "produce", topic, 120, [
        *context.stamps(),
        "--partitions", str(CONSUME_PARTITIONS), "--bytes", str(context.consume_bytes), "--acks", "all",
        "--topic-config", f"segment.bytes={CONSUME_SEGMENT_BYTES}", *context.topic_configs()])


def _consumed(report):
    """Latency is that of a fetch, from the request to the last byte of its answer."""
    return {
        "MB/s": report["consume"]["mb_per_s"],
        "broker CPU s/GB": report["broker"]["s_per_gb"],
        "p50 us": report["consume"]["latency_us"]["p50"],
        "p99 us": report["consume"]["latency_us"]["p99"],
        **clients.memory_metrics(report),
    }
