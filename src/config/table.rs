//! Every configuration entry, one row each. Nothing about an entry stands anywhere else.
//!
//! A row reads: doc sentence; field and Rust type `as` DescribeConfigs type; broker-level name; `topic` field and name
//! where a topic may override it; default; bounds; unit; aliases in coarser units; then `is running` (may be
//! altered while running) and `is inert` (accepted for Kafka's tools, without effect on one node).
//! Names, types, defaults and bounds are Kafka 4's wherever the meaning is Kafka's.

use std::path::PathBuf;

use super::declare::declare_entries;
use super::entry::{Alias, Alter, ConfigType, Entry, INT_MAX, LONG_MAX, Rule, Unit};
use super::origin::Origins;
use super::value::{
    CleanupPolicy, CompressionType, Limit, ListenAddr, LogFilter, MigrationPolicy, OptionalAddr, Problem,
    Setting, ShardCount, TimestampType, WritePath, normalize,
};

declare_entries! {
    section "Doors" {
        /// Where Kafka clients connect; port 0 picks a free port.
        kafka_addr: ListenAddr as String, "kafka.addr", default "127.0.0.1:9092";
        /// Where Redis clients connect, or `off`; the default is skipped with a word when it is taken, an address
        /// given here must be free.
        redis_addr: OptionalAddr as String, "redis.addr", default "127.0.0.1:6379";
        /// Where metrics, health checks and the console are served over HTTP, or `off`.
        admin_addr: OptionalAddr as String, "admin.addr", default "127.0.0.1:9644";
        /// The host that Kafka clients are told to connect to; without it, the address that they dialled.
        advertised_host: Option<String> as String, "advertised.host", default "";
        /// The port that Kafka clients are told to connect to; without it, the port that the server listens on.
        advertised_port: Option<u16> as Int, "advertised.port", default "", bounds 1 => 65535;
        /// The node id by which Kafka clients know this server.
        node_id: i32 as Int, "node.id", default "0", bounds 0 => INT_MAX;
        /// The rack that Metadata reports for this server.
        broker_rack: Option<String> as String, "broker.rack", default "";
        /// Shard i also listens on the Kafka port + i, and Metadata reports each shard as its own broker.
        shard_listeners: bool as Boolean, "shard.listeners", default "false";
    }
    section "Process" {
        /// The directory that holds all data.
        data_dir: PathBuf as String, "log.dir", default "./logstreams-data";
        /// How many shards (one executor on one core each) to run; `auto` is one per CPU that the process may use
        /// (by affinity and cgroup quota), but one on two CPUs.
        shards: ShardCount as String, "shards", default "auto", bounds 0 => 1024;
        /// How long an idle shard looks for work before it sleeps; worth setting only on cores that nobody else uses. With
        /// -1 it does so for up to 200 us while one connection alone sends small requests and asks again at once.
        shard_spin_us: i64 as Int, "shard.spin.us", default "-1", bounds -1 => 100_000, unit Microseconds;
        /// How many threads at most carry out the blocking file calls of each shard; they start when there is work and
        /// end when there is none.
        blocking_threads: usize as Int, "blocking.threads", default "8", bounds 1 => 64;
        /// Appends stop with a retriable error while the disk has less free space than this, so that reads, deletes
        /// and recovery still have room.
        disk_reserve_bytes: u64 as Long, "disk.reserve.bytes",
            default "256MiB", bounds 0 => LONG_MAX, unit Bytes, is running;
        /// What is logged on standard error: a level, or directives such as `info,logstreams::kafka=debug`.
        log_level: LogFilter as String, "log.level", default "info";
    }
    section "Topics" {
        /// A topic that a client asks for is created on the spot.
        auto_create_topics_enable: bool as Boolean, "auto.create.topics.enable", default "true";
        /// How many partitions a topic gets when its creator does not say.
        num_partitions: i32 as Int, "num.partitions", default "1", bounds 1 => INT_MAX, is running;
        /// How many replicas a topic gets when its creator does not say; one node has one.
        default_replication_factor: i32 as Int, "default.replication.factor", default "1", bounds 1 => 1;
        /// How many partitions this server holds at most; creating more is refused.
        partitions_max: usize as Int, "partitions.max", default "20000", bounds 1 => INT_MAX, is running;
        /// Topics may be deleted by clients.
        delete_topic_enable: bool as Boolean, "delete.topic.enable", default "true";
        /// How many replicas must have a record before `acks=all` is answered; one node has one, and more than one
        /// makes such produce requests fail, as in Kafka.
        min_insync_replicas: i32 as Int, "min.insync.replicas",
            topic min_insync_replicas "min.insync.replicas",
            default "1", bounds 1 => INT_MAX, is running;
        /// A replica that lags may become leader; one node has nobody to elect.
        unclean_leader_election_enable: bool as Boolean, "unclean.leader.election.enable",
            topic unclean_leader_election_enable "unclean.leader.election.enable",
            default "false", is running, is inert;
    }
    section "Segments" {
        /// The size at which a segment is closed and the next one begun; Kafka 4 allows 1 MiB and more, smaller ones
        /// are for trying out retention.
        log_segment_bytes: u64 as Int, "log.segment.bytes", topic segment_bytes "segment.bytes",
            default "1073741824", bounds 1024 => INT_MAX, unit Bytes, is running;
        /// The age at which a segment is closed even if it is not full.
        log_roll_ms: i64 as Long, "log.roll.ms", topic segment_ms "segment.ms",
            default "604800000", bounds 1 => LONG_MAX, unit Milliseconds,
            alias "log.roll.hours" Hours, is running;
        /// The greatest random time taken off `segment.ms`, so that segments do not all roll at once.
        log_roll_jitter_ms: i64 as Long, "log.roll.jitter.ms", topic segment_jitter_ms "segment.jitter.ms",
            default "0", bounds 0 => LONG_MAX, unit Milliseconds,
            alias "log.roll.jitter.hours" Hours, is running;
        /// How many bytes of log lie between two entries of the offset index.
        log_index_interval_bytes: u64 as Int, "log.index.interval.bytes",
            topic index_interval_bytes "index.interval.bytes",
            default "4096", bounds 0 => INT_MAX, unit Bytes, is running;
        /// The size at which a full index closes its segment.
        log_index_size_max_bytes: u64 as Int, "log.index.size.max.bytes",
            topic segment_index_bytes "segment.index.bytes",
            default "10485760", bounds 4 => INT_MAX, unit Bytes, is running;
        /// Segment files get their full size on disk when they are created.
        log_preallocate: bool as Boolean, "log.preallocate", topic preallocate "preallocate",
            default "false", is running, is inert;
        /// How long the files of a deleted segment stay, renamed, before they are removed.
        log_segment_delete_delay_ms: u64 as Long, "log.segment.delete.delay.ms",
            topic file_delete_delay_ms "file.delete.delay.ms",
            default "60000", bounds 0 => LONG_MAX, unit Milliseconds, is running;
    }
    section "Retention" {
        /// How long records are kept at least; -1 keeps them forever.
        log_retention_ms: Limit as Long, "log.retention.ms", topic retention_ms "retention.ms",
            default "604800000", bounds -1 => LONG_MAX, unit Milliseconds,
            alias "log.retention.minutes" Minutes, alias "log.retention.hours" Hours, is running;
        /// How many bytes a partition keeps at least before old segments go; -1 sets no bound.
        log_retention_bytes: Limit as Long, "log.retention.bytes", topic retention_bytes "retention.bytes",
            default "-1", bounds -1 => LONG_MAX, unit Bytes, is running;
        /// How often old segments are looked for.
        log_retention_check_interval_ms: u64 as Long, "log.retention.check.interval.ms",
            default "300000", bounds 1 => LONG_MAX, unit Milliseconds;
        /// What happens to old records: `delete` removes whole segments; `compact` comes in a later version.
        log_cleanup_policy: CleanupPolicy as List, "log.cleanup.policy",
            topic cleanup_policy "cleanup.policy",
            default "delete", is running;
        /// How long compaction keeps a deletion mark.
        log_cleaner_delete_retention_ms: i64 as Long, "log.cleaner.delete.retention.ms",
            topic delete_retention_ms "delete.retention.ms",
            default "86400000", bounds 0 => LONG_MAX, unit Milliseconds, is running, is inert;
        /// How long a record stays out of compaction at least.
        log_cleaner_min_compaction_lag_ms: i64 as Long, "log.cleaner.min.compaction.lag.ms",
            topic min_compaction_lag_ms "min.compaction.lag.ms",
            default "0", bounds 0 => LONG_MAX, unit Milliseconds, is running, is inert;
        /// How long a record stays out of compaction at most.
        log_cleaner_max_compaction_lag_ms: i64 as Long, "log.cleaner.max.compaction.lag.ms",
            topic max_compaction_lag_ms "max.compaction.lag.ms",
            default "9223372036854775807", bounds 1 => LONG_MAX, unit Milliseconds, is running, is inert;
        /// The share of a log that must have changed before it is compacted.
        log_cleaner_min_cleanable_ratio: f64 as Double, "log.cleaner.min.cleanable.ratio",
            topic min_cleanable_dirty_ratio "min.cleanable.dirty.ratio",
            default "0.5", bounds 0 => 1, is running, is inert;
    }
    section "Durability" {
        /// After how many records a partition is synced to disk; 1 acknowledges every record only after the sync, one
        /// sync for all that wait.
        log_flush_interval_messages: i64 as Long, "log.flush.interval.messages",
            topic flush_messages "flush.messages",
            default "9223372036854775807", bounds 1 => LONG_MAX, is running;
        /// How long a written record stays unsynced at most, which bounds what a power cut can take; a killed process
        /// loses nothing whatever the value (Kafka's default leaves the sync to the kernel).
        log_flush_interval_ms: u64 as Long, "log.flush.interval.ms", topic flush_ms "flush.ms",
            default "1000", bounds 0 => LONG_MAX, unit Milliseconds, is running;
        /// How appended bytes reach the disk: through the page cache, by direct I/O, or as `flush.messages` suggests.
        write_path: WritePath as String, "write.path", topic write_path "write.path",
            default "auto", is running;
        /// The size of one direct write; a multiple of 4096.
        dma_write_bytes: usize as Int, "dma.write.bytes",
            default "1MiB", bounds 4096 => 16_777_216, unit Bytes;
    }
    section "Messages" {
        /// The largest record batch that is accepted, as it arrives.
        message_max_bytes: usize as Int, "message.max.bytes", topic max_message_bytes "max.message.bytes",
            default "1048588", bounds 0 => INT_MAX, unit Bytes, is running;
        /// Which timestamp records carry: the producer's or that of the append.
        log_message_timestamp_type: TimestampType as String, "log.message.timestamp.type",
            topic message_timestamp_type "message.timestamp.type",
            default "CreateTime", is running;
        /// How far a producer's timestamp may lie in the past.
        log_message_timestamp_before_max_ms: i64 as Long, "log.message.timestamp.before.max.ms",
            topic message_timestamp_before_max_ms "message.timestamp.before.max.ms",
            default "9223372036854775807", bounds 0 => LONG_MAX, unit Milliseconds, is running;
        /// How far a producer's timestamp may lie in the future.
        log_message_timestamp_after_max_ms: i64 as Long, "log.message.timestamp.after.max.ms",
            topic message_timestamp_after_max_ms "message.timestamp.after.max.ms",
            default "3600000", bounds 0 => LONG_MAX, unit Milliseconds, is running;
        /// The codec under which batches are kept: the producer's, or one into which all others are compressed anew.
        compression_type: CompressionType as String, "compression.type",
            topic compression_type "compression.type",
            default "producer", is running;
        /// The level of gzip; -1 is the codec's own choice.
        compression_gzip_level: i32 as Int, "compression.gzip.level",
            topic compression_gzip_level "compression.gzip.level",
            default "-1", bounds -1 => 9, is running, is inert;
        /// The level of LZ4.
        compression_lz4_level: i32 as Int, "compression.lz4.level",
            topic compression_lz4_level "compression.lz4.level",
            default "9", bounds 1 => 17, is running, is inert;
        /// The level of Zstandard.
        compression_zstd_level: i32 as Int, "compression.zstd.level",
            topic compression_zstd_level "compression.zstd.level",
            default "3", bounds -131_072 => 22, is running, is inert;
    }
    section "Caches" {
        /// The memory that keeps the newest batches for consumers at the tail, shared out over the shards; the oldest
        /// go first.
        tail_cache_bytes: usize as Long, "tail.cache.bytes",
            default "128MiB", bounds 0 => LONG_MAX, unit Bytes;
        /// How many sealed segments stay mapped, shared out over the shards; the least recently read are unmapped first.
        segment_cache_count: usize as Int, "segment.cache.count", default "1024", bounds 1 => INT_MAX;
        /// How many bytes of sealed segments stay mapped, shared out over the shards.
        segment_cache_bytes: u64 as Long, "segment.cache.bytes",
            default "64GiB", bounds 0 => LONG_MAX, unit Bytes;
        /// How many bytes may be read past the page cache at a time for readers of old data, shared out over the shards:
        /// two blocks of 1 MiB for each partition that is read from the disk. Further readers go through the page cache.
        cold_read_bytes: usize as Long, "cold.read.bytes",
            default "64MiB", bounds 0 => LONG_MAX, unit Bytes;
    }
    section "Limits" {
        /// The largest request that is read; a larger one closes its connection before any memory is taken for it.
        socket_request_max_bytes: usize as Int, "socket.request.max.bytes",
            default "104857600", bounds 1024 => INT_MAX, unit Bytes;
        /// How many connections are open at once; further ones are closed at once.
        max_connections: usize as Int, "max.connections", default "10000", bounds 1 => INT_MAX, is running;
        /// How many connections one address may have open.
        max_connections_per_ip: usize as Int, "max.connections.per.ip",
            default "2147483647", bounds 0 => INT_MAX, is running;
        /// How long a connection may be silent before it is closed.
        connections_max_idle_ms: u64 as Long, "connections.max.idle.ms",
            default "600000", bounds 1 => LONG_MAX, unit Milliseconds;
        /// How many bytes of requests one connection may have under way; beyond it the socket is not read, so that the
        /// client waits. One larger request is still taken alone.
        connection_inflight_max_bytes: usize as Long, "connection.inflight.max.bytes",
            default "32MiB", bounds 1024 => LONG_MAX, unit Bytes;
        /// How many bytes of requests all connections of one shard may have under way; beyond it their sockets are not
        /// read.
        shard_inflight_max_bytes: usize as Long, "shard.inflight.max.bytes",
            default "256MiB", bounds 1024 => LONG_MAX, unit Bytes;
        /// The largest answer to one fetch, whatever the client asks for.
        fetch_max_bytes: usize as Int, "fetch.max.bytes",
            default "57671680", bounds 1024 => INT_MAX, unit Bytes;
        /// How many fetches may wait on one shard for the append that wakes them; further ones look again every 25 ms.
        shard_fetch_waiters_max: usize as Int, "shard.fetch.waiters.max",
            default "100000", bounds 1 => INT_MAX;
        /// How many fetch sessions are remembered; clients beyond it send full requests.
        max_incremental_fetch_session_cache_slots: usize as Int, "max.incremental.fetch.session.cache.slots",
            default "1000", bounds 0 => INT_MAX;
    }
    section "Redis" {
        /// The largest argument of a Redis command; a client that announces a larger one is told so and disconnected
        /// before any memory is taken for it.
        redis_bulk_max_bytes: usize as Long, "redis.bulk.max.bytes",
            default "32MiB", bounds 1024 => 536_870_912, unit Bytes;
        /// How many arguments a Redis command may have; a client that announces more is disconnected.
        redis_array_elements_max: usize as Int, "redis.array.elements.max",
            default "1048576", bounds 16 => 16_777_216;
        /// The largest Redis command as a whole, and the largest transaction between MULTI and EXEC; beyond it a
        /// client is disconnected, a transaction refused.
        redis_query_buffer_max_bytes: usize as Long, "redis.query.buffer.max.bytes",
            default "64MiB", bounds 1024 => 2_147_483_647, unit Bytes;
        /// The largest reply to one Redis command; a command that must answer with more (XRANGE without COUNT) is
        /// refused, one that may answer with less (XREAD) does.
        redis_reply_max_bytes: usize as Long, "redis.reply.max.bytes",
            default "64MiB", bounds 1024 => 2_147_483_647, unit Bytes;
        /// How many bytes of pushes wait for one subscriber's socket; beyond it its subscriptions stop reading the log
        /// and go on when the socket drains. Nothing is dropped.
        redis_push_buffer_bytes: usize as Long, "redis.push.buffer.bytes",
            default "256KiB", bounds 1024 => 2_147_483_647, unit Bytes;
        /// How long after a push has reached the socket of `SUBSCRIBE topic@group` it counts as read. Who dies earlier, or
        /// hangs up without UNSUBSCRIBE or QUIT, leaves it to be pushed again. Longer is safer for slow subscribers and
        /// repeats more.
        redis_subscription_acknowledge_delay_ms: u64 as Long, "redis.subscription.acknowledge.delay.ms",
            default "1000", bounds 0 => 86_400_000, unit Milliseconds;
        /// How many channels and patterns one connection may subscribe to; further ones are refused.
        redis_subscriptions_max: usize as Int, "redis.subscriptions.max", default "10000", bounds 1 => INT_MAX;
        /// How many entries of one group of one stream may wait for their acknowledgement; beyond it XREADGROUP is
        /// refused until some are acknowledged.
        redis_group_pending_max: usize as Int, "redis.group.pending.max",
            default "1000000", bounds 1 => INT_MAX;
        /// How many consumers one group of one stream may have; a further one is refused.
        redis_group_consumers_max: usize as Int, "redis.group.consumers.max",
            default "10000", bounds 1 => INT_MAX;
        /// How many partitions the topic that holds pending entries is created with.
        redis_groups_topic_num_partitions: i32 as Int, "redis.groups.topic.num.partitions",
            default "8", bounds 1 => 10_000;
    }
    section "Groups" {
        /// The shortest session timeout that a member may ask for.
        group_min_session_timeout_ms: i32 as Int, "group.min.session.timeout.ms",
            default "6000", bounds 0 => INT_MAX, unit Milliseconds;
        /// The longest session timeout that a member may ask for.
        group_max_session_timeout_ms: i32 as Int, "group.max.session.timeout.ms",
            default "1800000", bounds 0 => INT_MAX, unit Milliseconds;
        /// How long an empty group waits for further members before its first rebalance.
        group_initial_rebalance_delay_ms: i32 as Int, "group.initial.rebalance.delay.ms",
            default "3000", bounds 0 => INT_MAX, unit Milliseconds;
        /// How many members a group may have.
        group_max_size: usize as Int, "group.max.size", default "2147483647", bounds 1 => INT_MAX;
        /// Silence after which a member of a consumer group (KIP-848) is removed.
        group_consumer_session_timeout_ms: i32 as Int, "group.consumer.session.timeout.ms",
            default "45000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The smallest `consumer.session.timeout.ms` that a group may set for itself.
        group_consumer_min_session_timeout_ms: i32 as Int, "group.consumer.min.session.timeout.ms",
            default "45000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The largest `consumer.session.timeout.ms` that a group may set for itself.
        group_consumer_max_session_timeout_ms: i32 as Int, "group.consumer.max.session.timeout.ms",
            default "60000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How often members of consumer groups are told to send heartbeats.
        group_consumer_heartbeat_interval_ms: i32 as Int, "group.consumer.heartbeat.interval.ms",
            default "5000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The smallest `consumer.heartbeat.interval.ms` that a group may set for itself.
        group_consumer_min_heartbeat_interval_ms: i32 as Int, "group.consumer.min.heartbeat.interval.ms",
            default "5000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The largest `consumer.heartbeat.interval.ms` that a group may set for itself.
        group_consumer_max_heartbeat_interval_ms: i32 as Int, "group.consumer.max.heartbeat.interval.ms",
            default "15000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How many members a consumer group may have.
        group_consumer_max_size: usize as Int, "group.consumer.max.size",
            default "2147483647", bounds 1 => INT_MAX;
        /// Whether groups change between the classic and the consumer protocol while they have members.
        group_consumer_migration_policy: MigrationPolicy as String, "group.consumer.migration.policy",
            default "bidirectional";
        /// The shortest time between two assignments of a consumer group, so that members who come together are
        /// assigned together; 0 assigns at once.
        group_consumer_assignment_interval_ms: i32 as Int, "group.consumer.assignment.interval.ms",
            default "1000", bounds 0 => INT_MAX, unit Milliseconds;
        /// The smallest `consumer.assignment.interval.ms` that a group may set for itself.
        group_consumer_min_assignment_interval_ms: i32 as Int, "group.consumer.min.assignment.interval.ms",
            default "0", bounds 0 => INT_MAX, unit Milliseconds;
        /// The largest `consumer.assignment.interval.ms` that a group may set for itself.
        group_consumer_max_assignment_interval_ms: i32 as Int, "group.consumer.max.assignment.interval.ms",
            default "15000", bounds 0 => INT_MAX, unit Milliseconds;
        /// The longest time between two looks for topics that match a group's regular expressions; new topics are
        /// looked for at once.
        group_consumer_regex_refresh_interval_ms: i32 as Int, "group.consumer.regex.refresh.interval.ms",
            default "600000", bounds 10_000 => INT_MAX, unit Milliseconds;
        /// Silence after which a member of a share group (KIP-932) is removed.
        group_share_session_timeout_ms: i32 as Int, "group.share.session.timeout.ms",
            default "45000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The smallest `share.session.timeout.ms` that a group may set for itself.
        group_share_min_session_timeout_ms: i32 as Int, "group.share.min.session.timeout.ms",
            default "45000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The largest `share.session.timeout.ms` that a group may set for itself.
        group_share_max_session_timeout_ms: i32 as Int, "group.share.max.session.timeout.ms",
            default "60000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How often members of share groups are told to send heartbeats.
        group_share_heartbeat_interval_ms: i32 as Int, "group.share.heartbeat.interval.ms",
            default "5000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The smallest `share.heartbeat.interval.ms` that a group may set for itself.
        group_share_min_heartbeat_interval_ms: i32 as Int, "group.share.min.heartbeat.interval.ms",
            default "5000", bounds 1 => INT_MAX, unit Milliseconds;
        /// The largest `share.heartbeat.interval.ms` that a group may set for itself.
        group_share_max_heartbeat_interval_ms: i32 as Int, "group.share.max.heartbeat.interval.ms",
            default "15000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How many members a share group may have.
        group_share_max_size: usize as Int, "group.share.max.size", default "200", bounds 1 => 1_000;
        /// The shortest time between two assignments of a share group; 0 assigns at once.
        group_share_assignment_interval_ms: i32 as Int, "group.share.assignment.interval.ms",
            default "1000", bounds 0 => INT_MAX, unit Milliseconds;
        /// The smallest `share.assignment.interval.ms` that a group may set for itself.
        group_share_min_assignment_interval_ms: i32 as Int, "group.share.min.assignment.interval.ms",
            default "0", bounds 0 => INT_MAX, unit Milliseconds;
        /// The largest `share.assignment.interval.ms` that a group may set for itself.
        group_share_max_assignment_interval_ms: i32 as Int, "group.share.max.assignment.interval.ms",
            default "15000", bounds 0 => INT_MAX, unit Milliseconds;
        /// How long a record is locked for the member of a share group that it was delivered to.
        group_share_record_lock_duration_ms: i32 as Int, "group.share.record.lock.duration.ms",
            default "30000", bounds 1_000 => 3_600_000, unit Milliseconds;
        /// The smallest `share.record.lock.duration.ms` that a group may set for itself.
        group_share_min_record_lock_duration_ms: i32 as Int, "group.share.min.record.lock.duration.ms",
            default "15000", bounds 1000 => INT_MAX, unit Milliseconds;
        /// The largest `share.record.lock.duration.ms` that a group may set for itself.
        group_share_max_record_lock_duration_ms: i32 as Int, "group.share.max.record.lock.duration.ms",
            default "60000", bounds 1000 => INT_MAX, unit Milliseconds;
        /// How often a record is delivered to a share group at most; after that nobody gets it.
        group_share_delivery_count_limit: i16 as Int, "group.share.delivery.count.limit",
            default "5", bounds 2 => 10;
        /// The smallest `share.delivery.count.limit` that a group may set for itself.
        group_share_min_delivery_count_limit: i32 as Int, "group.share.min.delivery.count.limit",
            default "2", bounds 2 => INT_MAX;
        /// The largest `share.delivery.count.limit` that a group may set for itself.
        group_share_max_delivery_count_limit: i32 as Int, "group.share.max.delivery.count.limit",
            default "10", bounds 2 => INT_MAX;
        /// How many records of one partition may be on their way to a share group; beyond it members wait.
        group_share_partition_max_record_locks: i32 as Int, "group.share.partition.max.record.locks",
            default "2000", bounds 100 => 10_000;
        /// The smallest `share.partition.max.record.locks` that a group may set for itself.
        group_share_min_partition_max_record_locks: i32 as Int, "group.share.min.partition.max.record.locks",
            default "100", bounds 100 => INT_MAX;
        /// The largest `share.partition.max.record.locks` that a group may set for itself.
        group_share_max_partition_max_record_locks: i32 as Int, "group.share.max.partition.max.record.locks",
            default "4000", bounds 100 => INT_MAX;
        /// How many sessions members of share groups may have; further ones are refused.
        group_share_max_share_sessions: usize as Int, "group.share.max.share.sessions",
            default "2000", bounds 1 => INT_MAX;
        /// How many partitions share groups may read at once, counted once for each group; beyond it those without locked
        /// records are put aside, and where all have some further readers are refused until they are done.
        group_share_partitions_max: usize as Int, "group.share.partitions.max",
            default "100000", bounds 1 => INT_MAX;
        /// How many partitions the topic is created with that keeps what share groups have read.
        share_coordinator_state_topic_num_partitions: i32 as Int, "share.coordinator.state.topic.num.partitions",
            default "50", bounds 1 => 10_000;
        /// The segment size of that topic.
        share_coordinator_state_topic_segment_bytes: u64 as Int, "share.coordinator.state.topic.segment.bytes",
            default "104857600", bounds 1024 => INT_MAX, unit Bytes;
        /// How many groups this server keeps; joining or committing under a new name beyond it is refused.
        groups_max: usize as Int, "groups.max", default "100000", bounds 1 => INT_MAX;
        /// How many partitions the offsets topic is created with.
        offsets_topic_num_partitions: i32 as Int, "offsets.topic.num.partitions",
            default "50", bounds 1 => 10_000;
        /// The segment size of the offsets topic.
        offsets_topic_segment_bytes: u64 as Int, "offsets.topic.segment.bytes",
            default "104857600", bounds 1024 => INT_MAX, unit Bytes;
        /// How many replicas the offsets topic asks for; one node has one.
        offsets_topic_replication_factor: i16 as Short, "offsets.topic.replication.factor",
            default "1", bounds 1 => 32_767, is inert;
        /// How long the offsets of an empty group are kept.
        offsets_retention_minutes: i64 as Int, "offsets.retention.minutes",
            default "10080", bounds 1 => INT_MAX, unit Minutes;
        /// How often expired offsets are looked for.
        offsets_retention_check_interval_ms: u64 as Long, "offsets.retention.check.interval.ms",
            default "600000", bounds 1 => LONG_MAX, unit Milliseconds;
        /// The largest note that a member may store with an offset.
        offset_metadata_max_bytes: usize as Int, "offset.metadata.max.bytes",
            default "4096", bounds 0 => INT_MAX, unit Bytes;
    }
    section "Transactions" {
        /// The longest timeout that a transactional producer may ask for; InitProducerId is refused beyond it.
        transaction_max_timeout_ms: i32 as Int, "transaction.max.timeout.ms",
            default "900000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How long a transactional id is remembered after its last change; an open transaction keeps it.
        transactional_id_expiration_ms: i64 as Int, "transactional.id.expiration.ms",
            default "604800000", bounds 1 => INT_MAX, unit Milliseconds;
        /// How many transactional ids each partition of the transaction state topic keeps; a producer with a new one is
        /// refused beyond it.
        transactional_ids_max: usize as Int, "transactional.ids.max", default "100000", bounds 1 => INT_MAX;
        /// How many partitions the transaction state topic is created with.
        transaction_state_log_num_partitions: i32 as Int, "transaction.state.log.num.partitions",
            default "50", bounds 1 => 10_000;
        /// The segment size of the transaction state topic.
        transaction_state_log_segment_bytes: u64 as Int, "transaction.state.log.segment.bytes",
            default "104857600", bounds 1024 => INT_MAX, unit Bytes;
        /// How many replicas the transaction state topic asks for; one node has one.
        transaction_state_log_replication_factor: i16 as Short, "transaction.state.log.replication.factor",
            default "1", bounds 1 => 32_767, is inert;
        /// How many replicas must have a change of a transaction; one node has one.
        transaction_state_log_min_isr: i32 as Int, "transaction.state.log.min.isr",
            default "1", bounds 1 => INT_MAX, is inert;
        /// Whether the coordinator is asked, before a transaction's first records in a partition are appended, that the
        /// partition was added to it; without it a client that makes mistakes can leave a transaction open forever.
        transaction_partition_verification_enable: bool as Boolean, "transaction.partition.verification.enable",
            default "true", is running;
        /// How long a produce request of transaction version 2 waits for the markers of the producer's last transaction
        /// before it is answered with an error that makes the client try again.
        add_partitions_to_txn_retry_backoff_max_ms: u64 as Int, "add.partitions.to.txn.retry.backoff.max.ms",
            default "100", bounds 0 => INT_MAX, unit Milliseconds;
        /// How often that is looked at again; here a change wakes whoever waits for it.
        add_partitions_to_txn_retry_backoff_ms: u64 as Int, "add.partitions.to.txn.retry.backoff.ms",
            default "20", bounds 1 => INT_MAX, unit Milliseconds, is inert;
        /// How often transactions that take too long are looked for; here each is aborted when its time has come.
        transaction_abort_timed_out_transaction_cleanup_interval_ms: u64 as Int,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            default "10000", bounds 1 => INT_MAX, unit Milliseconds, is inert;
        /// How often forgotten transactional ids are looked for; here each goes when its time has come.
        transaction_remove_expired_transaction_cleanup_interval_ms: u64 as Int,
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            default "3600000", bounds 1 => INT_MAX, unit Milliseconds, is inert;
    }
    section "Producers" {
        /// How long the state of a silent idempotent producer is kept.
        producer_id_expiration_ms: i64 as Int, "producer.id.expiration.ms",
            default "86400000", bounds 1 => INT_MAX, unit Milliseconds, is running;
        /// How often expired producers are looked for.
        producer_id_expiration_check_interval_ms: u64 as Int, "producer.id.expiration.check.interval.ms",
            default "600000", bounds 1 => INT_MAX, unit Milliseconds;
    }
    topics only {
        /// Replicas whose fetching is throttled on the follower's side; one node has no followers.
        follower_replication_throttled_replicas: String as List, "follower.replication.throttled.replicas",
            default "", is inert;
        /// Replicas whose fetching is throttled on the leader's side; one node has no followers.
        leader_replication_throttled_replicas: String as List, "leader.replication.throttled.replicas",
            default "", is inert;
    }
}

/// The entry that the macro's order promises next.
fn next_entry(entries: &mut std::slice::Iter<'static, Entry>, name: &str) -> &'static Entry {
    match entries.next() {
        Some(entry) if entry.name == name => entry,
        _ => unreachable!("the table lists the entry {name} in the order of the fields"),
    }
}

/// The default of an entry, which the table promises to be legal (a test walks them all).
fn default_of<T: Setting>(entry: &Entry) -> T {
    match T::read(&entry.rule, entry.default) {
        Ok(value) => value,
        Err(problem) => unreachable!("the default of {} is illegal: {problem}", entry.name),
    }
}
