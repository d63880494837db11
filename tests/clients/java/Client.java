import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DeletedRecords;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own Java client under test. Verbs and lines: tests/clients/README.md. */
public final class Client {
    private static final Duration TIMEOUT = Duration.ofSeconds(60);
    private static final PrintStream OUT =
        new PrintStream(new BufferedOutputStream(System.out, 1 << 20), false, StandardCharsets.UTF_8);

    private final String bootstrap;

    private Client(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        check(args.length >= 3 && args[0].equals("--bootstrap"), "usage: Client --bootstrap HOST:PORT VERB ...");
        Client client = new Client(args[1]);
        List<String> rest = new ArrayList<>(Arrays.asList(args).subList(3, args.length));
        boolean idempotent = rest.remove("--idempotent");
        boolean plain = rest.remove("--plain");
        boolean committed = rest.remove("--committed");
        boolean modern = rest.remove("--modern");
        int count = -1;
        if (rest.get(0).equals("--count")) {
            count = Integer.parseInt(rest.get(1));
            rest = rest.subList(2, rest.size());
        }
        try {
            switch (args[2]) {
                case "create" -> client.create(List.of(rest.get(0).split(",")), Integer.parseInt(rest.get(1)), rest.subList(2, rest.size()));
                case "produce" -> client.produce(rest, idempotent, plain);
                case "consume" -> client.consume(rest, committed);
                case "transact" -> client.transact(
                    rest.get(0), rest.get(1), rest.get(2), rest.get(3), Integer.parseInt(rest.get(4)));
                case "member" -> client.member(rest.get(0), rest.get(1), count, modern);
                case "admin" -> client.admin(rest.get(0));
                default -> throw new IllegalArgumentException("unknown verb " + args[2]);
            }
        } finally {
            OUT.flush();
        }
        System.exit(0);
    }

    private Map<String, Object> settings(Object... pairs) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) {
            settings.put((String) pairs[i], pairs[i + 1]);
        }
        return settings;
    }

    private KafkaProducer<byte[], byte[]> producer(Object... pairs) {
        return new KafkaProducer<>(settings(pairs), new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
        Map<String, Object> settings = settings(pairs);
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    // The lines.

    private static void say(Object... fields) {
        String line = Arrays.stream(fields).map(String::valueOf).collect(Collectors.joining("\t"));
        synchronized (OUT) {
            OUT.print(line + "\n");
        }
    }

    private static void sayNow(Object... fields) {
        say(fields);
        OUT.flush();
    }

    private static void sayRecord(ConsumerRecord<byte[], byte[]> record) {
        List<String> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(header.key() + ":" + hex(header.value()));
        }
        say("record", record.topic(), record.partition(), record.offset(), record.timestamp(),
            hex(record.key()), hex(record.value()), String.join(",", headers));
    }

    private static String hex(byte[] data) {
        return data == null ? "-" : HexFormat.of().formatHex(data);
    }

    private static byte[] unhex(String field) {
        return field.equals("-") ? null : HexFormat.of().parseHex(field);
    }

    private static void step(String name) {
        sayNow("step", name);
    }

    private static void check(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError("check failed: " + message);
        }
    }

    private static void equal(Object seen, Object expected, String what) {
        check(seen.equals(expected), what + ": expected " + expected + ", found " + seen);
    }

    private static void waitFor(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TIMEOUT.toNanos();
        while (!condition.call()) {
            check(System.nanoTime() < deadline, "waited in vain for " + what);
            Thread.sleep(50);
        }
    }

    private static void fails(Class<? extends Exception> expected, Future<?> future, String what) throws Exception {
        try {
            future.get();
        } catch (ExecutionException error) {
            check(expected.isInstance(error.getCause()), what + " failed otherwise: " + error.getCause());
            return;
        }
        check(false, what + " went through");
    }

    // The verbs.

    private void create(List<String> topics, int partitions, List<String> configs) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            Map<String, String> entries = configs.stream()
                .map(pair -> pair.split("=", 2))
                .collect(Collectors.toMap(pair -> pair[0], pair -> pair[1]));
            admin.createTopics(topics.stream()
                .map(topic -> new NewTopic(topic, partitions, (short) 1).configs(entries))
                .toList()).all().get();
        }
    }

    private void produce(List<String> targets, boolean idempotent, boolean plain) throws IOException {
        Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
        for (String target : targets) {
            String[] parts = target.split(":");
            Map<String, Object> settings = settings(
                "compression.type", parts[1], "linger.ms", 5, "acks", "all", "delivery.timeout.ms", 120_000);
            if (idempotent || plain) {
                settings.put("enable.idempotence", idempotent);
            }
            producers.put(
                parts[0], new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer()));
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        int line = 0;
        for (String text = input.readLine(); text != null; text = input.readLine(), line++) {
            String[] fields = text.split("\t", -1);
            int number = line;
            producers.forEach((topic, producer) -> {
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                    topic, null, Long.parseLong(fields[0]), unhex(fields[1]), unhex(fields[2]));
                for (String pair : fields[3].isEmpty() ? new String[0] : fields[3].split(",")) {
                    String[] header = pair.split(":", 2);
                    record.headers().add(header[0], unhex(header[1]));
                }
                producer.send(record, (sent, error) -> {
                    if (error == null) {
                        say("ack", topic, number, sent.partition(), sent.offset());
                    } else {
                        say("failed", topic, number, error);
                    }
                });
            });
        }
        producers.values().forEach(KafkaProducer::close);
    }

    private void consume(List<String> topics, boolean committed) {
        String isolation = committed ? "read_committed" : "read_uncommitted";
        try (KafkaConsumer<byte[], byte[]> consumer = consumer("isolation.level", isolation)) {
            List<TopicPartition> places = topics.stream()
                .flatMap(topic -> consumer.partitionsFor(topic).stream())
                .map(info -> new TopicPartition(info.topic(), info.partition()))
                .toList();
            Map<TopicPartition, Long> starts = consumer.beginningOffsets(places);
            Map<TopicPartition, Long> ends = new HashMap<>(consumer.endOffsets(places));
            ends.entrySet().removeIf(end -> end.getValue().equals(starts.get(end.getKey())));
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            while (!ends.isEmpty()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    TopicPartition place = new TopicPartition(record.topic(), record.partition());
                    Long end = ends.get(place);
                    if (end != null) {
                        sayRecord(record);
                    }
                }
                // Not the last record's offset: markers and what was aborted may lie behind it.
                ends.entrySet().removeIf(end -> consumer.position(end.getKey()) >= end.getValue());
            }
        }
    }

    private void transact(String id, String group, String input, String output, int count) {
        KafkaProducer<byte[], byte[]> producer = producer(
            "transactional.id", id, "transaction.timeout.ms", 20_000, "delivery.timeout.ms", 20_000,
            "request.timeout.ms", 10_000, "reconnect.backoff.max.ms", 500);
        producer.initTransactions();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(
            "group.id", group,
            "session.timeout.ms", 6000,
            "heartbeat.interval.ms", 1000,
            "isolation.level", "read_committed",
            "reconnect.backoff.max.ms", 500,
            "max.poll.records", 50)) {
            consumer.subscribe(List.of(input));
            int committed = 0;
            int transactions = 0;
            while (committed < count) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) {
                    continue;
                }
                transactions++; // only these: every third poll might be the one that finds something, for ever
                producer.beginTransaction();
                try {
                    Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
                    for (ConsumerRecord<byte[], byte[]> record : records) {
                        producer.send(new ProducerRecord<>(output, record.key(), record.value()));
                        ends.put(new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                    }
                    producer.sendOffsetsToTransaction(ends, consumer.groupMetadata());
                    if (transactions % 3 != 0) {
                        insistently(producer::commitTransaction);
                        committed += records.count();
                        sayNow("committed", records.count());
                        continue;
                    }
                    producer.flush(); // else nothing might be sent of what is aborted
                } catch (ProducerFencedException | OutOfOrderSequenceException error) {
                    throw error;
                } catch (KafkaException error) {
                    System.err.println("aborts after " + error);
                }
                insistently(producer::abortTransaction);
                sayNow("aborted", records.count());
                for (TopicPartition place : records.partitions()) {
                    if (consumer.assignment().contains(place)) {
                        consumer.seek(place, records.records(place).get(0).offset());
                    }
                }
            }
        }
        producer.close();
    }

    /** Calls again while the producer says that it does not know yet. */
    private static void insistently(Runnable call) {
        while (true) {
            try {
                call.run();
                return;
            } catch (TimeoutException error) {
                // The server is away; the same call finds out what has become of the transaction.
            }
        }
    }

    private static final class Assignments implements ConsumerRebalanceListener {
        private final boolean incremental;
        private final Set<Integer> partitions = new TreeSet<>();

        private Assignments(boolean incremental) {
            this.incremental = incremental;
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
            if (incremental) {
                revoked.forEach(place -> partitions.remove(place.partition()));
                sayPartitions();
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
            if (!incremental) {
                partitions.clear();
            }
            assigned.forEach(place -> partitions.add(place.partition()));
            sayPartitions();
        }

        private void sayPartitions() {
            sayNow("assigned", partitions.stream().map(String::valueOf).collect(Collectors.joining(",")));
        }
    }

    private void member(String group, String topic, int count, boolean modern) {
        AtomicBoolean left = new AtomicBoolean();
        Thread stdin = new Thread(() -> {
            try {
                System.in.transferTo(PrintStream.nullOutputStream());
            } catch (IOException error) {
                // A broken standard input asks us to leave as much as a closed one.
            }
            left.set(true);
        });
        stdin.setDaemon(true);
        stdin.start();
        // With the new protocol the coordinator chooses the times.
        Object[] protocol = modern
            ? new Object[] {"group.protocol", "consumer"}
            : new Object[] {"session.timeout.ms", 6000, "heartbeat.interval.ms", 1000};
        Object[] common = {"group.id", group, "max.poll.records", 100};
        Object[] all = Stream.concat(Arrays.stream(common), Arrays.stream(protocol)).toArray();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(all)) {
            consumer.subscribe(List.of(topic), new Assignments(modern));
            int remaining = count;
            while (remaining != 0 && !left.get()) {
                Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (remaining == 0) {
                        break;
                    }
                    sayRecord(record);
                    ends.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                    remaining--;
                }
                if (ends.isEmpty()) {
                    continue;
                }
                try {
                    consumer.commitSync(ends);
                    sayNow("committed", ends.entrySet().stream()
                        .map(end -> end.getKey().partition() + ":" + end.getValue().offset())
                        .collect(Collectors.joining(",")));
                } catch (CommitFailedException | RebalanceInProgressException error) {
                    // A rebalance took the partitions away; their next owner reads the batch again.
                    sayNow("commit-failed", error);
                }
            }
        }
    }

    private void admin(String topic) throws Exception {
        String group = topic + "-group";
        TopicPartition place = new TopicPartition(topic, 0);
        try (Admin admin = Admin.create(settings())) {
            var cluster = admin.describeCluster();
            check(!cluster.clusterId().get().isEmpty(), "cluster has no id");
            check(cluster.nodes().get().contains(cluster.controller().get()), "controller is not a node");
            step("describe-cluster");

            NewTopic creation = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "86400000"));
            var created = admin.createTopics(List.of(creation));
            created.all().get();
            equal(created.numPartitions(topic).get(), 3, "partitions in the answer to the creation");
            equal(created.config(topic).get().get("retention.ms").value(), "86400000", "config in the same answer");
            fails(TopicExistsException.class, admin.createTopics(List.of(creation)).all(), "second creation");
            step("create-topic");

            // Kafka answers a creation before all of it knows the topic.
            waitFor("the topic to be known", () -> admin.listTopics().names().get().contains(topic));
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            equal(described.partitions().stream().map(info -> info.partition()).toList(), List.of(0, 1, 2), "partitions");
            check(!described.topicId().equals(Uuid.ZERO_UUID), "topic has no id");
            equal(created.topicId(topic).get(), described.topicId(), "topic id");
            step("describe-topic");

            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            waitFor("5 partitions", () ->
                admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5);
            step("create-partitions");

            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Callable<ConfigEntry> retention =
                () -> admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms");
            equal(retention.call().value(), "86400000", "retention.ms");
            equal(retention.call().source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of retention.ms");
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
            waitFor("retention.ms=7200000", () -> retention.call().value().equals("7200000"));
            var unset = new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(unset))).all().get();
            waitFor("the default of retention.ms", () -> retention.call().value().equals("604800000"));
            step("alter-configs");

            long now = System.currentTimeMillis();
            try (KafkaProducer<byte[], byte[]> producer = producer("enable.idempotence", true)) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int i = 0; i < 100; i++) {
                    long timestamp = now - 100_000 + i * 1000L;
                    sent.add(producer.send(new ProducerRecord<>(topic, 0, timestamp, null, new byte[] {(byte) i})));
                }
                for (int i = 0; i < 100; i++) {
                    equal(sent.get(i).get().offset(), (long) i, "offset of the idempotent producer");
                }
            }
            step("idempotent-produce");

            List<ProducerState> producers =
                admin.describeProducers(List.of(place)).partitionResult(place).get().activeProducers();
            equal(producers.size(), 1, "active producers");
            equal(producers.get(0).lastSequence(), 99, "last sequence");
            step("describe-producers");

            equal(offset(admin, place, OffsetSpec.earliest()), 0L, "earliest");
            equal(offset(admin, place, OffsetSpec.latest()), 100L, "latest");
            equal(offset(admin, place, OffsetSpec.maxTimestamp()), 99L, "offset of the largest timestamp");
            equal(offset(admin, place, OffsetSpec.forTimestamp(now - 50_500)), 50L, "offset by timestamp");
            step("list-offsets");

            DeletedRecords deleted =
                admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(10))).lowWatermarks().get(place).get();
            equal(deleted.lowWatermark(), 10L, "low watermark");
            equal(offset(admin, place, OffsetSpec.earliest()), 10L, "earliest after delete records");
            step("delete-records");

            List<Integer> nodes = admin.describeCluster().nodes().get().stream().map(node -> node.id()).toList();
            long size = admin.describeLogDirs(nodes).allDescriptions().get().values().stream()
                .flatMap(directories -> directories.values().stream())
                .mapToLong(directory -> Optional.ofNullable(directory.replicaInfos().get(place))
                    .map(replica -> replica.size()).orElse(0L))
                .max().orElse(0);
            check(size > 0, "log directories show no bytes for " + place);
            step("describe-log-dirs");

            try (KafkaConsumer<byte[], byte[]> consumer = consumer("group.id", group)) {
                consumer.subscribe(List.of(topic));
                List<Long> seen = new ArrayList<>();
                long deadline = System.nanoTime() + TIMEOUT.toNanos();
                while (seen.size() < 90 && System.nanoTime() < deadline) {
                    ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                    records.forEach(record -> seen.add(record.offset()));
                }
                equal(seen, LongStream.range(10, 100).boxed().toList(), "offsets after delete records");
                consumer.commitSync(Map.of(place, new OffsetAndMetadata(100, "note")));
                ConsumerGroupDescription group1 = describe(admin, group);
                equal(group1.groupState(), GroupState.STABLE, "group state");
                equal(group1.members().size(), 1, "group members");
                equal(
                    group1.members().iterator().next().assignment().topicPartitions(),
                    IntStream.range(0, 5).mapToObj(i -> new TopicPartition(topic, i)).collect(Collectors.toSet()),
                    "assigned partitions");
                step("describe-group");
                check(
                    admin.listGroups().all().get().stream().map(GroupListing::groupId).toList().contains(group),
                    "list groups leaves out " + group);
                step("list-groups");
            }

            equal(committed(admin, group), Map.of(place, new OffsetAndMetadata(100, "note")), "committed offsets");
            waitFor("an empty group", () -> describe(admin, group).groupState() == GroupState.EMPTY);
            admin.alterConsumerGroupOffsets(group, Map.of(place, new OffsetAndMetadata(42))).all().get();
            equal(committed(admin, group).get(place).offset(), 42L, "altered offset");
            admin.deleteConsumerGroupOffsets(group, Set.of(place)).all().get();
            equal(committed(admin, group), Map.of(), "deleted offsets");
            step("group-offsets");

            admin.deleteConsumerGroups(List.of(group)).all().get();
            fails(
                GroupIdNotFoundException.class, admin.deleteConsumerGroups(List.of(group)).all(), "second deletion");
            step("delete-group");

            admin.deleteTopics(List.of(topic)).all().get();
            waitFor("the topic to be gone", () -> !admin.listTopics().names().get().contains(topic));
            step("delete-topic");
        }
    }

    private static long offset(Admin admin, TopicPartition place, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(place, spec)).partitionResult(place).get().offset();
    }

    private static ConsumerGroupDescription describe(Admin admin, String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
    }

    private static Map<TopicPartition, OffsetAndMetadata> committed(Admin admin, String group) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((place, kept) -> {
            if (kept != null) {
                offsets.put(place, new OffsetAndMetadata(kept.offset(), kept.metadata()));
            }
        });
        return offsets;
    }
}
