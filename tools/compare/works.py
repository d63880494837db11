"""The table of works: its name on the command line, what it is called in the tables, and its function."""

import dataclasses
import functools
from typing import Callable

import works_bulk as bulk
import works_steady as steady


@dataclasses.dataclass
class Work:
    """One work; `titles` name the dictionaries of metrics that it returns, in their order."""

    titles: list
    function: Callable
    # Returns growth points of this metric instead of metrics.
    growth_metric: str = None
    # Its reports go into the results for their histograms.
    has_latency: bool = False
    # Needs no broker: it runs once a round.
    is_bare: bool = False
    # Only for sides whose name begins so.
    only: str = ""


def _with(function, **arguments):
    return functools.partial(function, **arguments)


def _groups(kind):
    return (f"{steady.GROUPS} {kind}, {steady.GROUP_MEMBERS} members each, "
            f"{steady.GROUPS * steady.GROUP_PARTITIONS:,} committed partitions: heartbeats every 3 s, commits every 5 s")


WORKS = {
    "produce-1": Work(
        ["produce 1 KiB: 1 partition, 1 connection, 5 in flight, batch 64 KiB, acks=all"],
        _with(bulk.produce_1k, partitions=1, connections=1)),
    "produce-8": Work(
        ["produce 1 KiB: 8 partitions, 4 connections, 5 in flight each, batch 64 KiB, acks=all"],
        _with(bulk.produce_1k, partitions=8, connections=4)),
    "produce-max-all": Work(
        ["produce 1 KiB at most: 8 partitions, 4 connections, batch 900 KiB, acks=all"],
        _with(bulk.produce_1k, partitions=8, connections=4, batch_bytes="900KiB")),
    "produce-max-1": Work(
        ["produce 1 KiB at most: 8 partitions, 4 connections, batch 900 KiB, acks=1"],
        _with(bulk.produce_1k, partitions=8, connections=4, batch_bytes="900KiB", acks="1")),
    "librdkafka-1": Work(
        ["produce 1 KiB: confluent-kafka, librdkafka's defaults, 1 partition"],
        _with(bulk.produce_librdkafka, partitions=1)),
    "librdkafka-8": Work(
        ["produce 1 KiB: confluent-kafka, librdkafka's defaults, 8 partitions"],
        _with(bulk.produce_librdkafka, partitions=8)),
    "produce-100b": Work(
        ["produce 100 bytes: 1 partition, 1 connection, batch 64 KiB, acks=all"], bulk.produce_100b),
    "produce-requests": Work(
        ["produce one 100-byte record a request: 100 connections with 1 in flight each, linger 0, acks=1"],
        bulk.produce_requests, has_latency=True),
    "bare": Work(
        ["bare loop: receive, CRC-32C, one pwrite a batch (1 KiB messages, batch 64 KiB, 5 in flight)"],
        bulk.bare_loop, is_bare=True),
    "bare-coalesce": Work(
        ["bare loop: receive, CRC-32C, one pwritev a read"],
        _with(bulk.bare_loop, arguments=("--coalesce",)), is_bare=True),
    "consume-tail": Work(
        [f"consume at the tail: {bulk.CONSUME_PARTITIONS} consumers, {bulk.TAIL_RATE:,} messages/s of 1 KiB, "
         f"linger {bulk.TAIL_LINGER_MS} ms (CPU of writing and reading)"],
        bulk.consume_tail, has_latency=True),
    "consume-sealed": Work(
        [f"consume 1 KiB: {bulk.CONSUME_PARTITIONS} partitions, sealed segments in the page cache"], bulk.consume_sealed),
    "consume-cold": Work(
        [f"consume 1 KiB: {bulk.CONSUME_PARTITIONS} partitions, from the disk"], bulk.consume_cold),
    "one-in-flight": Work(
        ["1,000 messages/s of 1 KiB, one in flight, acks=1: latency from the intended send to the answer"],
        _with(steady.produce_one_in_flight, rate=1_000), has_latency=True),
    "one-in-flight-5k": Work(
        ["5,000 messages/s of 1 KiB, one in flight, acks=1: latency from the intended send to the answer"],
        _with(steady.produce_one_in_flight, rate=5_000), has_latency=True),
    "end-to-end-1k": Work(
        ["1,000 messages/s of 1 KiB, acks=1: from the intended send to the reading"],
        _with(steady.end_to_end, rate=1_000), has_latency=True),
    "end-to-end-100k": Work(
        ["100,000 messages/s of 1 KiB, acks=1: from the intended send to the reading"],
        _with(steady.end_to_end, rate=100_000), has_latency=True),
    "end-to-end-max": Work(
        ["messages of 1 KiB at most, acks=1, one consumer reading them meanwhile"], steady.end_to_end_max),
    "end-to-end-long": Work(
        ["100,000 messages/s of 1 KiB, acks=1, for a minute on end: from the intended send to the reading"],
        _with(steady.end_to_end_long, rate=100_000, seconds=60), has_latency=True),
    "end-to-end-10-minutes": Work(
        [f"{steady.HALF_OF_KAFKAS_RATE:,} messages/s of 1 KiB, acks=1, for ten minutes on end: from the intended send to "
         "the reading"],
        _with(steady.end_to_end_long, rate=steady.HALF_OF_KAFKAS_RATE, seconds=600), has_latency=True),
    "synced-1": Work(
        ["acknowledged when synced (flush.messages=1): 1 producer with 1 KiB in flight, 1 partition"],
        _with(steady.produce_synced, partitions=1, connections=1), has_latency=True),
    "synced-64": Work(
        ["acknowledged when synced: 64 producers with 1 KiB in flight each, 1 partition"],
        _with(steady.produce_synced, partitions=1, connections=64), has_latency=True),
    "synced-64-100": Work(
        ["acknowledged when synced: 64 producers with 1 KiB in flight each, 100 partitions"],
        _with(steady.produce_synced, partitions=100, connections=64), has_latency=True),
    "kafka-tools": Work(
        ["ProducerPerformance 1 KiB, batch 64 KiB, linger 5 ms, acks=all (broker CPU with connecting)",
         "ConsumerPerformance 1 KiB (broker CPU with joining the group)"], bulk.kafka_tools),
    "create-partitions": Work(
        [f"create {steady.MANY_PARTITIONS:,} partitions until each took a message"], steady.create_partitions),
    "start": Work(
        ["start with an empty directory, then idle",
         "100 consumers waiting in long polls of 500 ms",
         "1,000 consumers waiting in long polls of 500 ms"], steady.start_and_idle),
    "start-1000": Work(
        ["start with 1,000 partitions after a clean stop"], _with(steady.start_with, partitions=1_000)),
    "start-10000": Work(
        ["start with 10,000 partitions after a clean stop"], _with(steady.start_with, partitions=10_000),
        only="LogStreams"),
    "start-killed": Work(
        ["start after kill -9 with 10 GB of log"], _with(steady.start_killed, log_bytes=10_000_000_000)),
    "groups-classic": Work(
        [_groups("classic groups")], _with(steady.groups, protocol="classic")),
    "groups-consumer": Work(
        [_groups("groups of KIP-848")], _with(steady.groups, protocol="consumer")),
    "grow-partitions": Work(
        [f"CPU of a message by partitions ({steady.GROWTH_RATE:,} one-record requests/s of 100 bytes, acks=1)"],
        steady.grow_partitions, growth_metric="broker CPU us/request"),
    "grow-connections": Work(
        [f"CPU of a message by connections ({steady.GROWTH_RATE:,} one-record requests/s of 100 bytes, acks=1)"],
        steady.grow_connections, growth_metric="broker CPU us/request"),
}
