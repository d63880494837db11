import java.time.Duration;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A sweep of Java's Admin over one broker: a line "STEP TAB ANSWER" for each call. Ids, ports, directories and moments are
 * left out, so that two brokers which behave alike print the same.
 */
public final class AdminSweep {
    private static Admin admin;
    /** The id of the one node. */
    private static int node;

    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("default.api.timeout.ms", 20_000);
        settings.put("request.timeout.ms", 10_000);
        // Where a broker refuses for good, the client would ask until the time is up.
        settings.put("retries", 3);
        admin = Admin.create(settings);
        node = admin.describeCluster().controller().get().id();
        awaitCoordinators();
        cluster();
        topics();
        configs();
        records(args[0]);
        groups();
        shareGroups();
        transactions();
        security();
        oneNode();
        admin.close(Duration.ZERO);
    }

    /** A broker makes the topics of its coordinators when they are first asked for; until then it says "try again". */
    private static void awaitCoordinators() throws Exception {
        admin.createTopics(List.of(new NewTopic("first", 1, (short) 1))).all().get();
        TopicPartition first = new TopicPartition("first", 0);
        insist(() -> admin.alterConsumerGroupOffsets("first", Map.of(first, new OffsetAndMetadata(0))).all().get());
        insist(() -> admin.deleteConsumerGroups(List.of("first")).all().get());
        insist(() -> admin.fenceProducers(List.of("first")).all().get());
        admin.deleteTopics(List.of("first")).all().get();
    }

    private static void insist(Callable<Object> call) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                call.call();
                return;
            } catch (ExecutionException error) {
                if (attempt == 100) {
                    throw error;
                }
                Thread.sleep(300);
            }
        }
    }

    private static void cluster() {
        say("describeCluster", () -> {
            var found = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            int controller = found.controller().get().id();
            boolean isAmong = found.nodes().get().stream().anyMatch(node -> node.id() == controller);
            return found.nodes().get().size() + " node, controller among them " + isAmong + ", id "
                + !found.clusterId().get().isEmpty() + ", operations " + sorted(found.authorizedOperations().get());
        });
        say("describeMetadataQuorum", () -> {
            var found = admin.describeMetadataQuorum().quorumInfo().get();
            boolean leads = found.voters().stream().anyMatch(voter -> voter.replicaId() == found.leaderId());
            return found.voters().size() + " voters, leader among them " + leads + ", observers "
                + found.observers().size() + ", moves on " + (found.highWatermark() >= 0 && found.leaderEpoch() >= 0);
        });
        say("describeFeatures finalized", () ->
            new TreeSet<>(admin.describeFeatures().featureMetadata().get().finalizedFeatures().keySet()));
    }

    private static void topics() {
        create("createTopics", new NewTopic("swept", 3, (short) 1));
        create("createTopics again", new NewTopic("swept", 3, (short) 1));
        create("createTopics with the defaults", new NewTopic("by-default", Optional.empty(), Optional.empty()));
        create("createTopics with configs", new NewTopic("configured", 1, (short) 1).configs(
            Map.of("retention.ms", "100000", "cleanup.policy", "delete", "max.message.bytes", "200000")));
        create("createTopics placed", new NewTopic("placed", Map.of(0, List.of(node), 1, List.of(node))));
        create("createTopics placed nowhere", new NewTopic("nowhere", Map.of(0, List.of(7))));
        create("createTopics placed with a gap", new NewTopic("gap", Map.of(1, List.of(node))));
        create("createTopics of a wrong name", new NewTopic("a b", 1, (short) 1));
        create("createTopics named dots", new NewTopic("..", 1, (short) 1));
        create("createTopics of a long name", new NewTopic("n".repeat(250), 1, (short) 1));
        create("createTopics that collides", new NewTopic("by_default", 1, (short) 1));
        create("createTopics without partitions", new NewTopic("none", 0, (short) 1));
        create("createTopics with two replicas", new NewTopic("twice", 1, (short) 2));
        create("createTopics with an unknown config",
            new NewTopic("odd", 1, (short) 1).configs(Map.of("no.such.config", "1")));
        create("createTopics with a wrong config",
            new NewTopic("odd", 1, (short) 1).configs(Map.of("retention.ms", "soon")));
        say("createTopics only to validate", () -> {
            var topic = new NewTopic("not-made", 2, (short) 1);
            var made = admin.createTopics(List.of(topic), new CreateTopicsOptions().validateOnly(true));
            return made.numPartitions("not-made").get() + " " + made.replicationFactor("not-made").get();
        });
        say("listTopics", () -> new TreeSet<>(admin.listTopics().names().get()));
        say("createPartitions", () -> admin.createPartitions(Map.of("swept", NewPartitions.increaseTo(4))).all().get());
        say("createPartitions to fewer",
            () -> admin.createPartitions(Map.of("swept", NewPartitions.increaseTo(2))).all().get());
        say("createPartitions to as many",
            () -> admin.createPartitions(Map.of("swept", NewPartitions.increaseTo(4))).all().get());
        say("createPartitions of none",
            () -> admin.createPartitions(Map.of("none", NewPartitions.increaseTo(4))).all().get());
        say("createPartitions placed", () -> admin.createPartitions(
            Map.of("placed", NewPartitions.increaseTo(3, List.of(List.of(node))))).all().get());
        say("createPartitions placed nowhere", () -> admin.createPartitions(
            Map.of("placed", NewPartitions.increaseTo(4, List.of(List.of(7))))).all().get());
        say("createPartitions only to validate", () -> admin.createPartitions(
            Map.of("swept", NewPartitions.increaseTo(9)), new CreatePartitionsOptions().validateOnly(true)).all().get());
        say("describeTopics", () -> admin.describeTopics(List.of("swept", "placed", "configured"),
                new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().values().stream()
            .map(AdminSweep::described).sorted().toList());
        say("describeTopics by pages", () -> described(admin.describeTopics(List.of("swept"),
            new DescribeTopicsOptions().partitionSizeLimitPerResponse(2)).allTopicNames().get().get("swept")));
        say("describeTopics of none", () -> admin.describeTopics(List.of("none")).allTopicNames().get());
        say("describeTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of("swept")).allTopicNames().get().get("swept").topicId();
            var found = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get();
            return described(found.get(id));
        });
        say("describeTopics by no id", () ->
            admin.describeTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).allTopicIds().get());
        say("deleteTopics", () -> admin.deleteTopics(List.of("placed")).all().get());
        say("deleteTopics again", () -> admin.deleteTopics(List.of("placed")).all().get());
        say("deleteTopics by id", () -> {
            Uuid id = admin.describeTopics(List.of("by-default")).allTopicNames().get().get("by-default").topicId();
            return admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        });
        say("deleteTopics by no id", () ->
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).all().get());
        say("listTopics afterwards", () -> new TreeSet<>(admin.listTopics().names().get()));
    }

    private static void create(String step, NewTopic topic) {
        say(step, () -> {
            CreateTopicsResult made = admin.createTopics(List.of(topic));
            String name = topic.name();
            return made.numPartitions(name).get() + " partitions, " + made.replicationFactor(name).get() + " replicas, id "
                + !made.topicId(name).get().equals(Uuid.ZERO_UUID) + ", retention "
                + made.config(name).get().get("retention.ms").value();
        });
    }

    private static String described(TopicDescription topic) {
        String partitions = topic.partitions().stream().map(AdminSweep::described).collect(Collectors.joining(" "));
        return topic.name() + (topic.isInternal() ? " internal" : "") + " id " + !topic.topicId().equals(Uuid.ZERO_UUID)
            + " operations " + (topic.authorizedOperations() == null ? "-" : sorted(topic.authorizedOperations()))
            + ": " + partitions;
    }

    private static String described(TopicPartitionInfo partition) {
        return partition.partition() + " led " + (partition.leader().id() == node) + " replicas " + partition.replicas().size() + " isr "
            + partition.isr().size() + " elr " + partition.elr() + " last known " + partition.lastKnownElr();
    }

    private static void configs() {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, "configured");
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, "a-group");
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        everyConfig("describeConfigs of a topic", topic);
        everyConfig("describeConfigs of a group", group);
        say("describeConfigs of a broker", () -> describe(broker).entries().stream()
            .filter(entry -> Set.of("log.retention.ms", "num.partitions", "message.max.bytes", "log.segment.bytes",
                "auto.create.topics.enable", "log.cleanup.policy", "compression.type").contains(entry.name()))
            .map(AdminSweep::described).sorted().toList());
        ConfigResource none = new ConfigResource(ConfigResource.Type.TOPIC, "none");
        say("describeConfigs of no topic", () -> describe(none).entries().size());
        say("describeConfigs of another broker",
            () -> describe(new ConfigResource(ConfigResource.Type.BROKER, "7")).entries().size());
        alter("SET", topic, OpType.SET, "retention.ms", "200000");
        alter("DELETE", topic, OpType.DELETE, "max.message.bytes", "");
        alter("APPEND", topic, OpType.APPEND, "cleanup.policy", "compact");
        alter("SUBTRACT", topic, OpType.SUBTRACT, "cleanup.policy", "compact");
        alter("APPEND to what is no list", topic, OpType.APPEND, "retention.ms", "1");
        alter("a wrong value", topic, OpType.SET, "retention.ms", "soon");
        alter("a value out of range", topic, OpType.SET, "min.cleanable.dirty.ratio", "2");
        alter("an unknown name", topic, OpType.SET, "no.such.config", "1");
        alter("of no topic", none, OpType.SET, "retention.ms", "1");
        alter("of a group", group, OpType.SET, "consumer.session.timeout.ms", "50000");
        alter("of a group, out of range", group, OpType.SET, "consumer.session.timeout.ms", "1");
        alter("of a group, as long as a heartbeat", group, OpType.SET, "share.heartbeat.interval.ms", "45000");
        alter("of a group, isolation", group, OpType.SET, "share.isolation.level", "read_committed");
        alter("of a group, no isolation", group, OpType.SET, "share.isolation.level", "serializable");
        alter("of a group, renewals", group, OpType.SET, "share.renew.acknowledge.enable", "perhaps");
        alter("of a group, too many deliveries", group, OpType.SET, "share.delivery.count.limit", "11");
        alter("of a group, locks", group, OpType.SET, "share.partition.max.record.locks", "4001");
        alter("of a group, an unknown name", group, OpType.SET, "retention.ms", "1");
        everyConfig("describeConfigs afterwards", topic);
        say("describeConfigs of the group afterwards",
            () -> described(describe(group).get("consumer.session.timeout.ms")));
        say("listConfigResources", () -> admin.listConfigResources().all().get().stream()
            .map(found -> found.type() + (found.type().name().startsWith("BROKER") ? "" : " " + found.name())).sorted().toList());
        alter("of a broker", broker, OpType.SET, "log.retention.ms", "86400000");
        alter("of a broker, read only", broker, OpType.SET, "auto.create.topics.enable", "false");
        alter("of a broker, back", broker, OpType.DELETE, "log.retention.ms", "");
    }

    private static Config describe(ConfigResource resource) throws Exception {
        return admin.describeConfigs(List.of(resource)).all().get().get(resource);
    }

    private static void everyConfig(String step, ConfigResource resource) {
        Config config;
        try {
            config = describe(resource);
        } catch (Exception error) {
            say(step, () -> { throw error; });
            return;
        }
        config.entries().stream().sorted(Comparator.comparing(ConfigEntry::name))
            .forEach(entry -> say(step + ": " + entry.name(), () -> described(entry)));
    }

    private static String described(ConfigEntry entry) {
        return entry.name() + "=" + entry.value() + " " + entry.source() + " " + entry.type()
            + (entry.isReadOnly() ? " read only" : "") + (entry.isSensitive() ? " sensitive" : "");
    }

    private static void alter(String what, ConfigResource resource, OpType type, String name, String value) {
        say("incrementalAlterConfigs " + what, () -> admin.incrementalAlterConfigs(
            Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), type)))).all().get());
    }

    private static void records(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", StringSerializer.class.getName());
        TopicPartition first = new TopicPartition("swept", 0);
        say("ten records", () -> {
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
                for (int i = 0; i < 10; i++) {
                    producer.send(new ProducerRecord<>("swept", 0, 1000L + i, "k", "value")).get();
                }
            }
            return "sent";
        });
        offsets("earliest", first, OffsetSpec.earliest());
        offsets("latest", first, OffsetSpec.latest());
        offsets("maxTimestamp", first, OffsetSpec.maxTimestamp());
        offsets("forTimestamp", first, OffsetSpec.forTimestamp(1004));
        offsets("forTimestamp too late", first, OffsetSpec.forTimestamp(5000));
        offsets("earliestLocal", first, OffsetSpec.earliestLocal());
        offsets("latestTiered", first, OffsetSpec.latestTiered());
        offsets("of an empty partition", new TopicPartition("swept", 1), OffsetSpec.maxTimestamp());
        offsets("of no partition", new TopicPartition("swept", 9), OffsetSpec.latest());
        delete("", first, 4);
        delete(" before the first", first, 2);
        delete(" beyond the last", first, 40);
        delete(" all", first, -1);
        delete(" of no topic", new TopicPartition("none", 0), 1);
        offsets("earliest afterwards", first, OffsetSpec.earliest());
        say("describeProducers", () -> admin.describeProducers(List.of(first)).all().get().get(first).activeProducers()
            .stream().map(it -> "id " + (it.producerId() >= 0) + " epoch " + it.producerEpoch() + " sequence "
                + it.lastSequence() + " coordinator " + it.coordinatorEpoch() + " open " + it.currentTransactionStartOffset())
            .toList());
        say("describeProducers of no partition", () ->
            admin.describeProducers(List.of(new TopicPartition("swept", 9))).all().get());
        say("describeLogDirs", () -> admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).values().stream()
            .map(it -> "error " + it.error() + " total " + it.totalBytes().isPresent() + " usable "
                + it.usableBytes().isPresent() + " of swept "
                + it.replicaInfos().keySet().stream().filter(key -> key.topic().equals("swept")).count()
                + " lag " + it.replicaInfos().get(first).offsetLag() + " future "
                + it.replicaInfos().get(first).isFuture()).toList());
        say("describeReplicaLogDirs", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica("swept", 0, node)))
            .all().get().values().stream().map(it -> "current " + (it.getCurrentReplicaLogDir() != null) + " lag "
                + it.getCurrentReplicaOffsetLag() + " future " + it.getFutureReplicaLogDir()).toList());
        say("alterReplicaLogDirs to nowhere", () -> admin.alterReplicaLogDirs(
            Map.of(new TopicPartitionReplica("swept", 0, node), "/nowhere")).all().get());
    }

    private static void offsets(String what, TopicPartition partition, OffsetSpec spec) {
        say("listOffsets " + what, () -> {
            var found = admin.listOffsets(Map.of(partition, spec)).all().get().get(partition);
            return found.offset() + " at " + found.timestamp() + " epoch " + found.leaderEpoch().isPresent();
        });
    }

    private static void delete(String what, TopicPartition partition, long before) {
        say("deleteRecords" + what, () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(before)))
            .lowWatermarks().get(partition).get().lowWatermark());
    }

    private static void groups() {
        TopicPartition first = new TopicPartition("swept", 0);
        TopicPartition second = new TopicPartition("swept", 1);
        say("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets("a-group",
            Map.of(first, new OffsetAndMetadata(7, Optional.of(0), "told"), second, new OffsetAndMetadata(0))).all().get());
        say("alterConsumerGroupOffsets of no topic", () -> admin.alterConsumerGroupOffsets("a-group",
            Map.of(new TopicPartition("none", 0), new OffsetAndMetadata(7))).all().get());
        say("listConsumerGroupOffsets", () -> new TreeMap<>(admin.listConsumerGroupOffsets("a-group")
            .partitionsToOffsetAndMetadata().get().entrySet().stream()
            .collect(Collectors.toMap(it -> it.getKey().toString(), it -> it.getValue().toString()))));
        say("listConsumerGroupOffsets of some", () -> admin.listConsumerGroupOffsets(Map.of("a-group",
            new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(first)))).partitionsToOffsetAndMetadata("a-group")
            .get());
        say("listConsumerGroupOffsets of no group", () -> admin.listConsumerGroupOffsets("no-group")
            .partitionsToOffsetAndMetadata().get());
        say("listGroups", () -> admin.listGroups().all().get().stream().map(it -> it.groupId() + " " + it.type() + " "
            + it.protocol() + " " + it.groupState()).sorted().toList());
        say("listGroups that are stable", () ->
            admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE))).all().get());
        say("listGroups that are empty", () ->
            admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all().get().size());
        say("listGroups of consumers", () ->
            admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).all().get());
        say("listGroups of the classic type", () ->
            admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))).all().get().size());
        say("describeConsumerGroups", () -> {
            var found = admin.describeConsumerGroups(List.of("a-group")).all().get().get("a-group");
            return found.groupId() + " " + found.type() + " " + found.groupState() + " members " + found.members()
                + " assignor " + found.partitionAssignor() + " simple " + found.isSimpleConsumerGroup() + " here "
                + (found.coordinator().id() == node) + " epochs " + found.groupEpoch() + " " + found.targetAssignmentEpoch();
        });
        say("describeConsumerGroups of none", () -> admin.describeConsumerGroups(List.of("no-group")).all().get());
        say("describeClassicGroups", () -> {
            var found = admin.describeClassicGroups(List.of("a-group")).all().get().get("a-group");
            return found.groupId() + " " + found.protocol() + " " + found.protocolData() + " " + found.state() + " "
                + found.members();
        });
        say("describeClassicGroups of none", () -> admin.describeClassicGroups(List.of("no-group")).all().get());
        say("describeStreamsGroups of none", () -> admin.describeStreamsGroups(List.of("no-group")).all().get());
        say("removeMembersFromConsumerGroup", () -> admin.removeMembersFromConsumerGroup("a-group",
            new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("an-instance")))).all().get());
        say("removeMembersFromConsumerGroup all", () -> admin.removeMembersFromConsumerGroup("a-group",
            new RemoveMembersFromConsumerGroupOptions()).all().get());
        say("deleteConsumerGroupOffsets", () ->
            admin.deleteConsumerGroupOffsets("a-group", Set.of(second)).all().get());
        say("deleteConsumerGroupOffsets of no group", () ->
            admin.deleteConsumerGroupOffsets("no-group", Set.of(second)).all().get());
        say("listConsumerGroupOffsets afterwards", () ->
            admin.listConsumerGroupOffsets("a-group").partitionsToOffsetAndMetadata().get().keySet());
        say("deleteConsumerGroups", () -> admin.deleteConsumerGroups(List.of("a-group")).all().get());
        say("deleteConsumerGroups again", () -> admin.deleteConsumerGroups(List.of("a-group")).all().get());
        say("listGroups afterwards", () -> admin.listGroups().all().get());
    }

    private static void shareGroups() {
        TopicPartition first = new TopicPartition("swept", 0);
        say("describeShareGroups of none", () -> admin.describeShareGroups(List.of("no-share")).all().get());
        say("listShareGroupOffsets of none", () -> admin.listShareGroupOffsets(
            Map.of("no-share", new ListShareGroupOffsetsSpec().topicPartitions(List.of(first)))).all().get());
        say("deleteShareGroupOffsets of none", () ->
            admin.deleteShareGroupOffsets("no-share", Set.of("swept")).all().get());
        say("deleteShareGroups of none", () -> admin.deleteShareGroups(List.of("no-share")).all().get());
        say("alterShareGroupOffsets of none", () -> admin.alterShareGroupOffsets("no-share", Map.of(first, 3L)).all().get());
        say("describeShareGroups of the one that was made", () -> {
            var found = admin.describeShareGroups(List.of("no-share")).all().get().get("no-share");
            return found.groupState() + " members " + found.members() + " epochs " + found.groupEpoch() + " "
                + found.targetAssignmentEpoch();
        });
        say("listShareGroupOffsets of it", () -> {
            var found = admin.listShareGroupOffsets(
                Map.of("no-share", new ListShareGroupOffsetsSpec().topicPartitions(List.of(first)))).all().get()
                .get("no-share").get(first);
            return found.startOffset() + " lag " + found.lag();
        });
        say("alterShareGroupOffsets of no topic", () ->
            admin.alterShareGroupOffsets("no-share-either", Map.of(new TopicPartition("no-topic", 0), 3L)).all().get());
        say("describeShareGroups of what was not made", () ->
            admin.describeShareGroups(List.of("no-share-either")).all().get());
        say("deleteShareGroups of it", () -> admin.deleteShareGroups(List.of("no-share")).all().get());
        say("describeShareGroups of it once more", () -> admin.describeShareGroups(List.of("no-share")).all().get());
        say("deleteStreamsGroups of none", () -> admin.deleteStreamsGroups(List.of("no-streams")).all().get());
    }

    private static void transactions() {
        TopicPartition first = new TopicPartition("swept", 0);
                say("listTransactions that last long", () ->
            admin.listTransactions(new ListTransactionsOptions().filterOnDuration(1000)).all().get());
        say("describeTransactions of none", () -> admin.describeTransactions(List.of("no-id")).all().get());
        say("fenceProducers", () -> {
            var fenced = admin.fenceProducers(List.of("an-id"));
            return (fenced.producerId("an-id").get() >= 0) + " " + fenced.epochId("an-id").get();
        });
        say("fenceProducers again", () -> admin.fenceProducers(List.of("an-id")).epochId("an-id").get());
        say("listTransactions afterwards", () -> admin.listTransactions().all().get().stream()
            .map(it -> it.transactionalId() + " " + it.state()).sorted().toList());
        say("describeTransactions", () -> {
            var found = admin.describeTransactions(List.of("an-id")).all().get().get("an-id");
            return found.state() + " " + found.producerEpoch() + " " + found.transactionTimeoutMs() + " "
                + found.transactionStartTimeMs() + " " + found.topicPartitions();
        });
        say("abortTransaction of none", () ->
            admin.abortTransaction(new AbortTransactionSpec(first, 12345L, (short) 0, 0)).all().get());
        say("forceTerminateTransaction", () -> admin.forceTerminateTransaction("an-id").result().get());
    }

    private static void security() {
        AclBinding acl = new AclBinding(new ResourcePattern(ResourceType.TOPIC, "swept", PatternType.LITERAL),
            new AccessControlEntry("User:anybody", "*", AclOperation.READ, AclPermissionType.ALLOW));
        say("createAcls", () -> admin.createAcls(List.of(acl)).all().get());
        say("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        say("deleteAcls", () -> admin.deleteAcls(List.of(AclBindingFilter.ANY)).all().get());
        say("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        say("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all().get());
        say("describeUserScramCredentials of nobody", () ->
            admin.describeUserScramCredentials(List.of("nobody")).description("nobody").get());
        say("createDelegationToken", () -> admin.createDelegationToken().delegationToken().get());
        say("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens().get());
        say("expireDelegationToken", () -> admin.expireDelegationToken(new byte[] {1}).expiryTimestamp().get());
        say("renewDelegationToken", () -> admin.renewDelegationToken(new byte[] {1}).expiryTimestamp().get());
        ClientQuotaEntity user = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "somebody"));
        say("alterClientQuotas", () -> admin.alterClientQuotas(List.of(
            new ClientQuotaAlteration(user, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6))))).all().get());
        say("alterUserScramCredentials", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(
            "somebody", new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8192), "secret"))).all().get());
    }

    private static void oneNode() {
        TopicPartition first = new TopicPartition("swept", 0);
        say("electLeaders preferred", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(first)).partitions().get());
        say("electLeaders preferred of all", () -> admin.electLeaders(ElectionType.PREFERRED, null).partitions().get());
        say("electLeaders unclean", () -> admin.electLeaders(ElectionType.UNCLEAN, Set.of(first)).partitions().get());
        say("electLeaders of none", () -> admin.electLeaders(ElectionType.PREFERRED,
            Set.of(new TopicPartition("none", 0))).partitions().get());
        say("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments().get());
        say("listPartitionReassignments of none", () ->
            admin.listPartitionReassignments(Set.of(new TopicPartition("none", 0))).reassignments().get());
        reassign("to itself", first, Optional.of(new NewPartitionReassignment(List.of(node))));
        reassign("to nowhere", first, Optional.of(new NewPartitionReassignment(List.of(7))));
        reassign("back", first, Optional.empty());
        reassign("of none", new TopicPartition("none", 0), Optional.of(new NewPartitionReassignment(List.of(node))));
        say("updateFeatures of none", () -> admin.updateFeatures(Map.of("no.such.feature",
            new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).all().get());
        say("unregisterBroker", () -> admin.unregisterBroker(7).all().get());
        say("listConfigResources of client metrics", () -> admin.listConfigResources(
            Set.of(ConfigResource.Type.CLIENT_METRICS), new org.apache.kafka.clients.admin.ListConfigResourcesOptions())
            .all().get());
        say("listTopics with the internal ones", () -> new TreeSet<>(
            admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get()));
    }

    private static void reassign(String what, TopicPartition partition, Optional<NewPartitionReassignment> wanted) {
        say("alterPartitionReassignments " + what, () ->
            admin.alterPartitionReassignments(Map.of(partition, wanted)).all().get());
    }

    /** One step; what it throws is an answer like any other. */
    private static void say(String step, Callable<Object> call) {
        Object answer;
        try {
            answer = call.call();
        } catch (ExecutionException | CompletionException error) {
            answer = "! " + error.getCause().getClass().getSimpleName();
        } catch (Exception error) {
            answer = "! " + error.getClass().getSimpleName();
        }
        System.out.println(step + "\t" + (answer == null ? "done" : String.valueOf(answer).replace('\n', ' ')));
    }

    private static <T> List<String> sorted(Collection<T> things) {
        return things.stream().map(String::valueOf).sorted().toList();
    }
}
