"""kafka-python under test. Verbs and lines: tests/clients/README.md."""

import os
import sys
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import kit  # noqa: E402

from kafka import (  # noqa: E402
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec  # noqa: E402
from kafka.errors import CommitFailedError, TopicAlreadyExistsError  # noqa: E402

TIMEOUT_S = 60


def create(args):
    admin = KafkaAdminClient(bootstrap_servers=args.bootstrap)
    configs = dict(pair.split("=", 1) for pair in args.configs)
    topic = {"num_partitions": args.partitions, "replication_factor": 1, "configs": configs}
    admin.create_topics({name: topic for name in args.topics}, wait_for_metadata=True)
    admin.close()


def produce(args):
    producers = []
    for topic, codec in kit.topics_and_codecs(args.targets):
        settings = {
            "bootstrap_servers": args.bootstrap,
            "compression_type": None if codec == "none" else codec,
            "linger_ms": 5,
            "acks": "all",
            "delivery_timeout_ms": 120_000,
            "reconnect_backoff_max_ms": 500,
        }
        if args.idempotent or args.plain:
            settings["enable_idempotence"] = args.idempotent
        producers.append((topic, KafkaProducer(**settings)))

    for line, record in enumerate(kit.records_in()):
        for topic, producer in producers:
            sent = producer.send(
                topic,
                value=record.value,
                key=record.key,
                headers=record.headers,
                timestamp_ms=record.timestamp,
            )
            sent.add_callback(lambda at, t=topic, n=line: kit.say("ack", t, n, at.partition, at.offset))
            sent.add_errback(lambda error, t=topic, n=line: kit.say("failed", t, n, repr(error)))
    for _, producer in producers:
        producer.flush()
        producer.close()


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


def consume(args):
    consumer = KafkaConsumer(
        bootstrap_servers=args.bootstrap, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False
    )
    places = [
        TopicPartition(topic, partition)
        for topic in args.topics
        for partition in sorted(consumer.partitions_for_topic(topic))
    ]
    starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
    ends = {place: end for place, end in ends.items() if end > starts[place]}
    consumer.assign(list(ends))
    consumer.seek_to_beginning()
    while ends:
        for place, messages in consumer.poll(timeout_ms=1000, max_records=2000).items():
            for message in messages:
                if place in ends:
                    say_message(message)
                    if message.offset + 1 >= ends[place]:
                        del ends[place]
    consumer.close()


class Assignments(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        kit.say_now("assigned", ",".join(str(place.partition) for place in sorted(assigned)))


def transact(args):
    consumer = KafkaConsumer(
        args.input,
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    producer = KafkaProducer(bootstrap_servers=args.bootstrap, transactional_id=args.id, acks="all")
    producer.init_transactions()
    committed = attempt = 0
    while committed < args.count:
        polled = consumer.poll(timeout_ms=200, max_records=50)
        count = sum(len(messages) for messages in polled.values())
        if count == 0:
            continue
        attempt += 1
        producer.begin_transaction()
        for messages in polled.values():
            for message in messages:
                producer.send(args.output, key=message.key, value=message.value)
        ends = {place: OffsetAndMetadata(messages[-1].offset + 1, "", -1) for place, messages in polled.items()}
        producer.send_offsets_to_transaction(ends, args.group)
        if attempt % 3 != 0:
            producer.commit_transaction()
            committed += count
            kit.say_now("committed", count)
            continue
        producer.flush()  # else nothing might be sent of what is aborted
        producer.abort_transaction()
        kit.say_now("aborted", count)
        for place, messages in polled.items():
            consumer.seek(place, messages[0].offset)
    producer.close()
    consumer.close()


def member(args):
    consumer = KafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe([args.topic], listener=Assignments())
    left = kit.when_stdin_closes()
    remaining = args.count
    while remaining != 0 and not left.is_set():
        polled = consumer.poll(timeout_ms=200, max_records=100 if remaining is None else min(100, remaining))
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
            consumer.commit(
                {
                    TopicPartition(args.topic, partition): OffsetAndMetadata(offset, "", -1)
                    for partition, offset in ends.items()
                }
            )
            kit.say_now("committed", ",".join(f"{partition}:{offset}" for partition, offset in ends.items()))
        except CommitFailedError as error:
            # A rebalance took the partitions away; their next owner reads the batch again.
            kit.say_now("commit-failed", error)
    consumer.close()


def admin(args):
    client = KafkaAdminClient(bootstrap_servers=args.bootstrap)
    topic, group = args.name, args.name + "-group"

    cluster = client.describe_cluster()
    kit.check(cluster["cluster_id"] and cluster["brokers"], f"cluster has no id or brokers: {cluster}")
    kit.step("describe-cluster")

    configs = {"retention.ms": "86400000"}
    client.create_topics({topic: {"num_partitions": 3, "replication_factor": 1, "configs": configs}})
    client.wait_for_topics([topic])
    try:
        client.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}})
        kit.check(False, "a topic was created twice")
    except TopicAlreadyExistsError:
        pass
    kit.step("create-topic")

    described = client.describe_topics([topic])[0]
    kit.equal(sorted(p["partition_index"] for p in described["partitions"]), [0, 1, 2], "partitions")
    by_id = client.describe_topics([uuid.UUID(described["topic_id"])])[0]
    kit.equal(by_id["name"], topic, "name of the topic id")
    paged = client.describe_topic_partitions([topic], response_partition_limit=2)
    kit.equal([p["partition_index"] for p in paged["topics"][0]["partitions"]], [0, 1], "first page")
    kit.equal(paged["next_cursor"]["partition_index"], 2, "next page")
    kit.step("describe-topic")

    client.create_partitions({topic: 5})
    wait_for(lambda: len(client.describe_topics([topic])[0]["partitions"]) == 5, "5 partitions")
    kit.step("create-partitions")

    def retention():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, None)
        return client.describe_configs([resource], config_filter="all")["topic"][topic]["retention.ms"]["value"]

    kit.equal(retention(), "86400000", "retention.ms")
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])
    wait_for(lambda: retention() == "7200000", "retention.ms=7200000")
    client.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, ["retention.ms"])])
    wait_for(lambda: retention() == "604800000", "the default of retention.ms")
    kit.step("alter-configs")

    place = TopicPartition(topic, 0)
    now = int(time.time() * 1000)
    producer = KafkaProducer(bootstrap_servers=args.bootstrap, enable_idempotence=True)
    sent = [
        producer.send(topic, partition=0, value=b"v%d" % i, timestamp_ms=now - 100_000 + i * 1000) for i in range(100)
    ]
    kit.equal([future.get(TIMEOUT_S).offset for future in sent], list(range(100)), "offsets of the producer")
    kit.step("idempotent-produce")

    producers = client.describe_producers([place])[place]
    kit.equal(len(producers), 1, f"producers {producers}")
    kit.step("describe-producers")
    producer.close()

    def offset_of(spec):
        return client.list_partition_offsets({place: spec})[place].offset

    kit.equal(offset_of(OffsetSpec.EARLIEST), 0, "earliest")
    kit.equal(offset_of(OffsetSpec.LATEST), 100, "latest")
    kit.equal(offset_of(OffsetSpec.MAX_TIMESTAMP), 99, "offset of the largest timestamp")
    kit.equal(offset_of(now - 50_500), 50, "offset by timestamp")
    kit.step("list-offsets")

    client.delete_records({place: 10})
    kit.equal(offset_of(OffsetSpec.EARLIEST), 10, "earliest after delete_records")
    kit.step("delete-records")

    directories = client.describe_log_dirs()
    kit.check(topic in repr(directories), f"describe_log_dirs leaves out {topic}")
    kit.step("describe-log-dirs")

    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=args.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    seen = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(seen) < 90 and time.monotonic() < deadline:
        for messages in consumer.poll(timeout_ms=200).values():
            seen += [message.offset for message in messages]
    kit.equal(seen, list(range(10, 100)), "offsets after delete_records")
    consumer.commit({place: OffsetAndMetadata(100, "note", -1)})
    described = client.describe_groups([group])[group]
    kit.check("stable" in str(described["group_state"]).lower(), f"group is not stable: {described}")
    kit.equal(len(described["members"]), 1, "group members")
    kit.step("describe-group")
    listed = [entry["group_id"] for entry in client.list_groups()]
    kit.check(group in listed, f"{group} is not among {listed}")
    kit.step("list-groups")
    consumer.close()

    def committed():
        return {at.partition: kept.offset for at, kept in client.list_group_offsets(group)[group].items()}

    kit.equal(committed(), {0: 100}, "committed offsets")
    kit.equal(client.list_group_offsets(group)[group][place].metadata, "note", "metadata of the commit")
    wait_for(
        lambda: "empty" in str(client.describe_groups([group])[group]["group_state"]).lower(), "an empty group"
    )
    client.alter_group_offsets(group, {place: OffsetAndMetadata(42, "", -1)})
    kit.equal(committed(), {0: 42}, "altered offsets")
    client.delete_group_offsets(group, [place])
    kit.equal(committed(), {}, "deleted offsets")
    kit.step("group-offsets")

    client.delete_groups([group])
    wait_for(lambda: group not in [entry["group_id"] for entry in client.list_groups()], "the group to be gone")
    kit.step("delete-group")

    client.delete_topics([topic])
    wait_for(lambda: topic not in client.list_topics(), "the topic to be gone")
    kit.step("delete-topic")
    client.close()


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        kit.check(time.monotonic() < deadline, f"waited in vain for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    arguments = kit.arguments()
    globals()[arguments.verb](arguments)
    kit.flush()
