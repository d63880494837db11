"""aiokafka under test. Verbs and lines: tests/clients/README.md."""

import asyncio
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import kit  # noqa: E402

from aiokafka import (  # noqa: E402
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete  # noqa: E402
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: E402
from aiokafka.errors import CommitFailedError, IllegalStateError  # noqa: E402

TIMEOUT_S = 60


async def create(args):
    admin = AIOKafkaAdminClient(bootstrap_servers=args.bootstrap)
    await admin.start()
    configs = dict(pair.split("=", 1) for pair in args.configs)
    for topic in args.topics:
        new = NewTopic(topic, num_partitions=args.partitions, replication_factor=1, topic_configs=configs)
        await create_topic(admin, new)
    await admin.close()


async def create_topic(admin, new):
    answer = await admin.create_topics([new])
    kit.equal([(name, code) for name, code, _ in answer.topic_errors], [(new.name, 0)], "CreateTopics")


async def produce(args):
    producers = []
    for topic, codec in kit.topics_and_codecs(args.targets):
        producer = AIOKafkaProducer(
            bootstrap_servers=args.bootstrap,
            compression_type=None if codec == "none" else codec,
            linger_ms=5,
            acks="all",
            enable_idempotence=args.idempotent,
            request_timeout_ms=120_000,
        )
        await producer.start()
        producers.append((topic, producer))

    def reporter(topic, line):
        def report(sent):
            if sent.exception() is not None:
                kit.say("failed", topic, line, repr(sent.exception()))
            else:
                kit.say("ack", topic, line, sent.result().partition, sent.result().offset)

        return report

    loop = asyncio.get_running_loop()
    lines = kit.records_in()
    line = 0
    while (record := await loop.run_in_executor(None, next, lines, None)) is not None:
        for topic, producer in producers:
            sent = await producer.send(
                topic,
                value=record.value,
                key=record.key,
                headers=record.headers,
                timestamp_ms=record.timestamp,
            )
            sent.add_done_callback(reporter(topic, line))
        line += 1
    for _, producer in producers:
        await producer.stop()


def say_message(message):
    kit.say_record(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value,
        message.headers,
    )


async def consume(args):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=args.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    consumer.subscribe(args.topics)
    places = []
    for topic in args.topics:
        await wait_for(lambda: consumer.partitions_for_topic(topic), f"partitions of {topic}")
        places += [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
    consumer.unsubscribe()
    consumer.assign(places)
    starts, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    ends = {place: end for place, end in ends.items() if end > starts[place]}
    await consumer.seek_to_beginning()
    while ends:
        for place, messages in (await consumer.getmany(timeout_ms=1000)).items():
            for message in messages:
                if place in ends:
                    say_message(message)
                    if message.offset + 1 >= ends[place]:
                        del ends[place]
    await consumer.stop()


class Assignments(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        kit.say_now("assigned", ",".join(str(place.partition) for place in sorted(assigned)))


async def transact(args):
    consumer = AIOKafkaConsumer(
        args.input,
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    await consumer.start()
    producer = AIOKafkaProducer(bootstrap_servers=args.bootstrap, transactional_id=args.id)
    await producer.start()
    committed = attempt = 0
    while committed < args.count:
        polled = await consumer.getmany(timeout_ms=200, max_records=50)
        count = sum(len(messages) for messages in polled.values())
        if count == 0:
            continue
        attempt += 1
        await producer.begin_transaction()
        for messages in polled.values():
            for message in messages:
                await producer.send(args.output, key=message.key, value=message.value)
        ends = {place: messages[-1].offset + 1 for place, messages in polled.items()}
        await producer.send_offsets_to_transaction(ends, args.group)
        if attempt % 3 != 0:
            await producer.commit_transaction()
            committed += count
            kit.say_now("committed", count)
            continue
        await producer.flush()  # else nothing might be sent of what is aborted
        await producer.abort_transaction()
        kit.say_now("aborted", count)
        for place, messages in polled.items():
            consumer.seek(place, messages[0].offset)
    await producer.stop()
    await consumer.stop()


async def member(args):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    consumer.subscribe([args.topic], listener=Assignments())
    left = kit.when_stdin_closes()
    remaining = args.count
    while remaining != 0 and not left.is_set():
        polled = await consumer.getmany(
            timeout_ms=200, max_records=100 if remaining is None else min(100, remaining)
        )
        if not polled:
            continue
        ends = {}
        for place, messages in polled.items():
            for message in messages:
                say_message(message)
            ends[place.partition] = messages[-1].offset + 1
            if remaining is not None:
                remaining -= len(messages)
        try:
            await consumer.commit(
                {TopicPartition(args.topic, partition): offset for partition, offset in ends.items()}
            )
            kit.say_now("committed", ",".join(f"{partition}:{offset}" for partition, offset in ends.items()))
        except (CommitFailedError, IllegalStateError) as error:
            # A rebalance took the partitions away; their next owner reads the batch again.
            kit.say_now("commit-failed", repr(error))
    await consumer.stop()


async def admin(args):
    client = AIOKafkaAdminClient(bootstrap_servers=args.bootstrap)
    await client.start()
    topic, group = args.name, args.name + "-group"

    cluster = await client.describe_cluster()
    kit.check(cluster["cluster_id"] and cluster["brokers"], f"cluster has no id or brokers: {cluster}")
    kit.step("describe-cluster")

    new = NewTopic(topic, num_partitions=3, replication_factor=1, topic_configs={"retention.ms": "86400000"})
    await create_topic(client, new)
    answer = await client.create_topics([new])
    kit.equal([code for _, code, _ in answer.topic_errors], [36], "code of the second creation")
    kit.step("create-topic")

    async def partitions():
        described = (await client.describe_topics([topic]))[0]
        return sorted(partition["partition"] for partition in described["partitions"])

    # Kafka answers a creation before all of it knows the topic.
    await wait_for_async(partitions, [0, 1, 2], "3 partitions")
    kit.step("describe-topic")

    await client.create_partitions({topic: NewPartitions(5)})
    await wait_for_async(partitions, [0, 1, 2, 3, 4], "5 partitions")
    kit.step("create-partitions")

    async def retention():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answers = await client.describe_configs([resource])
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}["retention.ms"]

    kit.equal(await retention(), "86400000", "retention.ms")
    change = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})
    await client.alter_configs([change])
    await wait_for_async(retention, "7200000", "retention.ms=7200000")
    kit.step("alter-configs")

    place = TopicPartition(topic, 0)
    now = int(time.time() * 1000)
    producer = AIOKafkaProducer(bootstrap_servers=args.bootstrap, enable_idempotence=True)
    await producer.start()
    sent = [
        await producer.send(topic, partition=0, value=b"v%d" % i, timestamp_ms=now - 100_000 + i * 1000)
        for i in range(100)
    ]
    kit.equal([(await future).offset for future in sent], list(range(100)), "offsets of the producer")
    await producer.stop()
    kit.step("idempotent-produce")

    reader = AIOKafkaConsumer(bootstrap_servers=args.bootstrap)
    await reader.start()
    kit.equal((await reader.beginning_offsets([place]))[place], 0, "earliest")
    kit.equal((await reader.end_offsets([place]))[place], 100, "latest")
    found = (await reader.offsets_for_times({place: now - 50_500}))[place]
    kit.equal((found.offset, found.timestamp), (50, now - 50_000), "offset by timestamp")
    kit.step("list-offsets")

    low = await client.delete_records({place: RecordsToDelete(before_offset=10)})
    kit.equal(low[place], 10, "low watermark")
    kit.equal((await reader.beginning_offsets([place]))[place], 10, "earliest after delete_records")
    await reader.stop()
    kit.step("delete-records")

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=args.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    seen = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(seen) < 90 and time.monotonic() < deadline:
        for messages in (await consumer.getmany(timeout_ms=200)).values():
            seen += [message.offset for message in messages]
    kit.equal(seen, list(range(10, 100)), "offsets after delete_records")
    await consumer.commit({place: 100})

    async def group_state():
        error, _, state, _, _, members = (await client.describe_consumer_groups([group]))[0].groups[0][:6]
        return (error, state, len(members))

    kit.equal(await group_state(), (0, "Stable", 1), "group while consumed")
    kit.step("describe-group")
    listed = [entry[0] for entry in await client.list_consumer_groups()]
    kit.check(group in listed, f"{group} is not among {listed}")
    kit.step("list-groups")
    await consumer.stop()
    await wait_for_async(group_state, (0, "Empty", 0), "an empty group")
    committed = await client.list_consumer_group_offsets(group)
    kit.equal({at.partition: kept.offset for at, kept in committed.items()}, {0: 100}, "committed offsets")
    kit.step("group-offsets")

    await client.delete_topics([topic])

    async def gone():
        return topic not in await client.list_topics()

    await wait_for_async(gone, True, "the topic to be gone")
    kit.step("delete-topic")
    await client.close()


async def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        kit.check(time.monotonic() < deadline, f"waited in vain for {what}")
        await asyncio.sleep(0.05)


async def wait_for_async(ask, expected, what):
    deadline = time.monotonic() + TIMEOUT_S
    while (seen := await ask()) != expected:
        kit.check(time.monotonic() < deadline, f"waited in vain for {what}, last seen {seen!r}")
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    arguments = kit.arguments()
    asyncio.run(globals()[arguments.verb](arguments))
    kit.flush()
