"""confluent-kafka (librdkafka) under test. Verbs and lines: tests/clients/README.md."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
import kit  # noqa: E402

from confluent_kafka import (  # noqa: E402
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # noqa: E402
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

TIMEOUT_S = 60


def create(args):
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    configs = dict(pair.split("=", 1) for pair in args.configs)
    new = [
        NewTopic(topic, num_partitions=args.partitions, replication_factor=1, config=configs)
        for topic in args.topics
    ]
    for created in admin.create_topics(new, operation_timeout=TIMEOUT_S).values():
        created.result()


def produce(args):
    producers = []
    for topic, codec in kit.topics_and_codecs(args.targets):
        settings = {
            "bootstrap.servers": args.bootstrap,
            "compression.codec": codec,
            "linger.ms": 5,
            "message.timeout.ms": 120_000,
            "acks": "all",
            "reconnect.backoff.max.ms": 500,
        }
        if args.idempotent:
            settings["enable.idempotence"] = True
        elif not args.plain:
            # Not idempotent by default, librdkafka keeps the order of retried batches only this way; and Kafka asks
            # for retries while a topic is young.
            settings["max.in.flight"] = 1
        producers.append((topic, Producer(settings)))

    def reporter(topic, line):
        def report(error, message):
            if error is not None:
                kit.say("failed", topic, line, error)
            else:
                kit.say("ack", topic, line, message.partition(), message.offset())

        return report

    # Reading is not delivering: an own thread serves the acknowledgements while we wait for the next line.
    done = []

    def serve():
        while not done:
            for _, producer in producers:
                producer.poll(0.01)
            kit.flush()

    server = kit.threading.Thread(target=serve)
    server.start()
    for line, record in enumerate(kit.records_in()):
        for topic, producer in producers:
            while True:
                try:
                    producer.produce(
                        topic,
                        value=record.value,
                        key=record.key,
                        headers=record.headers,
                        timestamp=record.timestamp,
                        on_delivery=reporter(topic, line),
                    )
                    break
                except BufferError:
                    time.sleep(0.01)
    for _, producer in producers:
        producer.flush()
    done.append(True)
    server.join()
    kit.flush()


def say_message(message):
    _, timestamp = message.timestamp()
    kit.say_record(
        message.topic(),
        message.partition(),
        message.offset(),
        timestamp,
        message.key(),
        message.value(),
        message.headers(),
    )


def consume(args):
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": "never-joined",
            "enable.auto.commit": False,
            "enable.partition.eof": args.committed,
            "isolation.level": "read_committed" if args.committed else "read_uncommitted",
        }
    )
    ends = {}
    for topic in args.topics:
        for partition in consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
            if high > low:
                ends[(topic, partition)] = high
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in ends])
    while ends:
        for message in consumer.consume(1000, timeout=1):
            place = (message.topic(), message.partition())
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                # The end of what a reader may see, which the watermarks do not tell.
                ends.pop(place, None)
            elif place in ends:
                say_message(message)
                if message.offset() + 1 >= ends[place]:
                    del ends[place]
    consumer.close()


def transact(args):
    settings = {
        "bootstrap.servers": args.bootstrap,
        "reconnect.backoff.max.ms": 500,
        # After a rebootstrap librdkafka 2.16 sends offsets to a broker handle that it is taking down, for ever.
        "metadata.recovery.strategy": "none",
    }
    consumer = Consumer(
        settings
        | {
            "group.id": args.group,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([args.input])
    producer = Producer(settings | {"transactional.id": args.id, "transaction.timeout.ms": 20_000})
    insistently(producer.init_transactions)
    committed = attempt = 0
    while committed < args.count:
        batch = [message for message in consumer.consume(50, timeout=0.2) if message.error() is None]
        if not batch:
            continue
        attempt += 1
        producer.begin_transaction()
        try:
            for message in batch:
                producer.produce(args.output, key=message.key(), value=message.value())
            ends = {message.partition(): message.offset() + 1 for message in batch}
            places = [TopicPartition(args.input, partition, offset) for partition, offset in ends.items()]
            group = consumer.consumer_group_metadata()
            insistently(lambda: producer.send_offsets_to_transaction(places, group))
            if attempt % 3 != 0:
                insistently(producer.commit_transaction)
                committed += len(batch)
                kit.say_now("committed", len(batch))
                continue
            producer.flush()  # else librdkafka would send nothing of what is aborted
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
        insistently(producer.abort_transaction)
        kit.say_now("aborted", len(batch))
        rewind(consumer, batch)
    consumer.close()


def insistently(call):
    """Calls again and again while librdkafka says that this may help."""
    while True:
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable():
                raise


def rewind(consumer, batch):
    starts = {}
    for message in batch:
        starts.setdefault(message.partition(), message.offset())
    owned = {place.partition for place in consumer.assignment()}
    for partition, offset in starts.items():
        if partition in owned:
            consumer.seek(TopicPartition(batch[0].topic(), partition, offset))


def member(args):
    # With the new protocol the coordinator chooses the times.
    protocol = {"group.protocol": "consumer"} if args.modern else {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}
    consumer = Consumer(
        protocol
        | {
            "bootstrap.servers": args.bootstrap,
            "group.id": args.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )

    owned = set()

    def assigned(_, partitions):
        # The new protocol only names what is added.
        if not args.modern:
            owned.clear()
        owned.update(place.partition for place in partitions)
        kit.say_now("assigned", ",".join(str(partition) for partition in sorted(owned)))

    def revoked(_, partitions):
        owned.difference_update(place.partition for place in partitions)
        if args.modern:
            kit.say_now("assigned", ",".join(str(partition) for partition in sorted(owned)))

    consumer.subscribe([args.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    left = kit.when_stdin_closes()
    remaining = args.count
    while remaining != 0 and not left.is_set():
        batch = consumer.consume(100 if remaining is None else min(100, remaining), timeout=0.2)
        if not batch:
            continue
        ends = {}
        for message in batch:
            if message.error():
                raise KafkaException(message.error())
            say_message(message)
            ends[message.partition()] = message.offset() + 1
        places = [TopicPartition(args.topic, partition, offset) for partition, offset in ends.items()]
        try:
            for place in consumer.commit(offsets=places, asynchronous=False):
                if place.error:
                    raise KafkaException(place.error)
            kit.say_now("committed", ",".join(f"{partition}:{offset}" for partition, offset in ends.items()))
        except KafkaException as error:
            # A rebalance took the partitions away; their next owner reads the batch again.
            kit.say_now("commit-failed", error)
        if remaining is not None:
            remaining -= len(batch)
    consumer.close()


def admin(args):
    client = AdminClient({"bootstrap.servers": args.bootstrap})
    topic, group = args.name, args.name + "-group"

    cluster = client.describe_cluster(request_timeout=TIMEOUT_S).result()
    kit.check(cluster.nodes and cluster.cluster_id, "cluster has no id or nodes")
    kit.check(cluster.controller.id in [node.id for node in cluster.nodes], "controller is not a node")
    kit.step("describe-cluster")

    new = NewTopic(topic, num_partitions=3, replication_factor=1, config={"retention.ms": "86400000"})
    client.create_topics([new])[topic].result()
    try:
        client.create_topics([new])[topic].result()
        kit.check(False, "a topic was created twice")
    except KafkaException as error:
        kit.equal(error.args[0].name(), "TOPIC_ALREADY_EXISTS", "second creation")
    kit.step("create-topic")

    # Kafka answers a creation before all of it knows the topic.
    wait_for(lambda: client.list_topics(topic, TIMEOUT_S).topics[topic].error is None, "the topic to be known")
    described = client.describe_topics(TopicCollection([topic]))[topic].result()
    kit.equal([p.id for p in described.partitions], [0, 1, 2], "partitions")
    kit.check(str(described.topic_id) not in ("", "AAAAAAAAAAAAAAAAAAAAAA"), "topic has no id")
    kit.check(all(p.leader is not None for p in described.partitions), "a partition has no leader")
    kit.step("describe-topic")

    client.create_partitions([NewPartitions(topic, 5)])[topic].result()
    wait_for(lambda: len(client.list_topics(topic, TIMEOUT_S).topics[topic].partitions) == 5, "5 partitions")
    kit.step("create-partitions")

    resource = ConfigResource(ResourceType.TOPIC, topic)
    configs = client.describe_configs([resource])[resource].result()
    kit.equal(configs["retention.ms"].value, "86400000", "retention.ms")
    kit.check("segment.bytes" in configs, "describe_configs leaves out segment.bytes")
    entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([change])[change].result()
    wait_for(
        lambda: client.describe_configs([resource])[resource].result()["retention.ms"].value == "7200000",
        "retention.ms=7200000",
    )
    entry = ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([change])[change].result()
    wait_for(
        lambda: client.describe_configs([resource])[resource].result()["retention.ms"].value == "604800000",
        "the default of retention.ms",
    )
    kit.step("alter-configs")

    offsets = []
    producer = Producer({"bootstrap.servers": args.bootstrap, "enable.idempotence": True})
    now = int(time.time() * 1000)
    for i in range(100):
        producer.produce(
            topic,
            partition=0,
            value=b"v%d" % i,
            timestamp=now - 100_000 + i * 1000,
            on_delivery=lambda error, message: offsets.append(-1 if error else message.offset()),
        )
    producer.flush()
    kit.equal(offsets, list(range(100)), "offsets of the idempotent producer")
    kit.step("idempotent-produce")

    place = TopicPartition(topic, 0)

    def offset_of(spec):
        return client.list_offsets({place: spec})[place].result().offset

    kit.equal(offset_of(OffsetSpec.earliest()), 0, "earliest")
    kit.equal(offset_of(OffsetSpec.latest()), 100, "latest")
    kit.equal(offset_of(OffsetSpec.max_timestamp()), 99, "offset of the largest timestamp")
    kit.equal(offset_of(OffsetSpec.for_timestamp(now - 50_500)), 50, "offset by timestamp")
    kit.step("list-offsets")

    result = client.delete_records([TopicPartition(topic, 0, 10)])[place].result()
    kit.equal(result.low_watermark, 10, "low watermark")
    kit.equal(offset_of(OffsetSpec.earliest()), 10, "earliest after delete_records")
    kit.step("delete-records")

    # A member that lives on while it is described.
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    seen = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(seen) < 90 and time.monotonic() < deadline:
        seen += [message.offset() for message in consumer.consume(100, timeout=0.2) if not message.error()]
    kit.equal(seen, list(range(10, 100)), "offsets after delete_records")
    consumer.commit(offsets=[TopicPartition(topic, 0, 100)], asynchronous=False)
    described = client.describe_consumer_groups([group])[group].result()
    kit.equal(described.state.name, "STABLE", "group state")
    kit.equal(len(described.members), 1, "group members")
    kit.equal(len(described.members[0].assignment.topic_partitions), 5, "assigned partitions")
    kit.step("describe-group")
    listed = [entry.group_id for entry in client.list_consumer_groups().result().valid]
    kit.check(group in listed, f"{group} is not among {listed}")
    kit.step("list-groups")
    consumer.close()

    def committed():
        answer = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
        return {place.partition: place.offset for place in answer.topic_partitions}

    kit.equal(committed(), {0: 100}, "committed offsets")
    wait_for(
        lambda: client.describe_consumer_groups([group])[group].result().state.name == "EMPTY", "an empty group"
    )
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 42)])
    client.alter_consumer_group_offsets([change])[group].result()
    kit.equal(committed(), {0: 42}, "altered offsets")
    kit.step("group-offsets")

    client.delete_consumer_groups([group])[group].result()
    try:
        client.delete_consumer_groups([group])[group].result()
        kit.check(False, "a group was deleted twice")
    except KafkaException as error:
        kit.equal(error.args[0].name(), "GROUP_ID_NOT_FOUND", "second deletion")
    kit.step("delete-group")

    client.delete_topics([topic])[topic].result()
    wait_for(lambda: topic not in client.list_topics(timeout=TIMEOUT_S).topics, "the topic to be gone")
    kit.step("delete-topic")


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        kit.check(time.monotonic() < deadline, f"waited in vain for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    arguments = kit.arguments()
    globals()[arguments.verb](arguments)
    kit.flush()
