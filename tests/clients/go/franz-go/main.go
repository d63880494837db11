// franz-go (kgo and kadm) under test. Verbs and lines: tests/clients/README.md.
package main

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"logstreams/clients/kit"
)

func main() {
	kit.Main(func(bootstrap string) kit.Client { return client{bootstrap} })
}

type client struct{ bootstrap string }

func (c client) connect(options ...kgo.Opt) *kgo.Client {
	return kit.Got(kgo.NewClient(append(options, kgo.SeedBrokers(c.bootstrap))...))
}

func (c client) Create(topics []string, partitions int, configs map[string]string) {
	admin := kadm.NewClient(c.connect())
	defer admin.Close()
	pointers := map[string]*string{}
	for key, value := range configs {
		pointers[key] = &value
	}
	created := kit.Got(admin.CreateTopics(context.Background(), int32(partitions), 1, pointers, topics...))
	kit.Must(created.Error())
}

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func (c client) Produce(targets []kit.Target, idempotent, plain bool) {
	kit.FlushRegularly()
	var producers []*kgo.Client
	for _, target := range targets {
		options := []kgo.Opt{
			kgo.DefaultProduceTopic(target.Topic),
			kgo.ProducerBatchCompression(codecs[target.Codec]),
			kgo.ProducerLinger(5 * time.Millisecond),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.RecordDeliveryTimeout(2 * time.Minute),
			kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
			kgo.MetadataMinAge(100 * time.Millisecond),
		}
		if plain {
			options = append(options, kgo.DisableIdempotentWrite())
		}
		producers = append(producers, c.connect(options...))
	}
	var waiting sync.WaitGroup
	kit.Records(func(record kit.Record) {
		for _, producer := range producers {
			headers := make([]kgo.RecordHeader, 0, len(record.Headers))
			for _, header := range record.Headers {
				headers = append(headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
			}
			waiting.Add(1)
			producer.Produce(context.Background(), &kgo.Record{
				Key:       record.Key,
				Value:     record.Value,
				Headers:   headers,
				Timestamp: record.Timestamp,
			}, func(sent *kgo.Record, err error) {
				defer waiting.Done()
				if err != nil {
					kit.Say("failed", sent.Topic, record.Line, err)
				} else {
					kit.Say("ack", sent.Topic, record.Line, sent.Partition, sent.Offset)
				}
			})
		}
	})
	waiting.Wait()
	for _, producer := range producers {
		producer.Close()
	}
}

func sayRecord(record *kgo.Record) {
	var headers []kit.Header
	for _, header := range record.Headers {
		headers = append(headers, kit.Header{Name: header.Key, Value: header.Value})
	}
	kit.SayRecord(record.Topic, record.Partition, record.Offset, record.Timestamp, record.Key, record.Value, headers)
}

func (c client) Consume(topics []string) {
	consumer := c.connect(
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	defer consumer.Close()
	admin := kadm.NewClient(consumer)
	type place struct {
		topic     string
		partition int32
	}
	ends := map[place]int64{}
	starts := kit.Got(admin.ListStartOffsets(context.Background(), topics...))
	kit.Got(admin.ListEndOffsets(context.Background(), topics...)).Each(func(end kadm.ListedOffset) {
		kit.Must(end.Err)
		if start, _ := starts.Lookup(end.Topic, end.Partition); end.Offset > start.Offset {
			ends[place{end.Topic, end.Partition}] = end.Offset
		}
	})
	for len(ends) > 0 {
		fetches := consumer.PollFetches(context.Background())
		fetches.EachError(func(topic string, partition int32, err error) {
			kit.Fail("fetch %s-%d: %v", topic, partition, err)
		})
		fetches.EachRecord(func(record *kgo.Record) {
			at := place{record.Topic, record.Partition}
			if end, open := ends[at]; open {
				sayRecord(record)
				if record.Offset+1 >= end {
					delete(ends, at)
				}
			}
		})
	}
}

// dialPatiently waits for a server that is being started again. The client itself takes a refused connection for the end
// of a transaction when it has to ask for the coordinator anew and knows no other broker, as in a cluster of one.
func dialPatiently(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		connection, err := dialer.DialContext(ctx, network, address)
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return connection, err
		}
	}
}

func (c client) Transact(id, group, input, output string, count int) {
	ctx := context.Background()
	session := kit.Got(kgo.NewGroupTransactSession(
		kgo.SeedBrokers(c.bootstrap),
		kgo.Dialer(dialPatiently),
		// A server that is killed under the first request of a connection looks like one that wants SASL.
		kgo.AlwaysRetryEOF(),
		kgo.TransactionalID(id),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(input),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(100*time.Millisecond),
	))
	defer session.Close()
	for committed, attempt := 0, 0; committed < count; {
		fetches := session.PollRecords(ctx, 50)
		fetches.EachError(func(topic string, partition int32, err error) {
			kit.Fail("fetch %s-%d: %v", topic, partition, err)
		})
		records := fetches.Records()
		if len(records) == 0 {
			continue
		}
		attempt++
		kit.Must(session.Begin())
		var promise kgo.FirstErrPromise
		for _, record := range records {
			session.Produce(ctx, &kgo.Record{Topic: output, Key: record.Key, Value: record.Value}, promise.Promise())
		}
		// Else nothing would be sent of what is aborted.
		kit.Must(session.Client().Flush(ctx))
		wanted := kgo.TransactionEndTry(attempt%3 != 0 && promise.Err() == nil)
		ended := kit.Got(session.End(ctx, wanted))
		if ended {
			committed += len(records)
			kit.SayNow("committed", len(records))
		} else {
			kit.SayNow("aborted", len(records))
		}
	}
}

func (c client) Member(group, topic string, count int) {
	// The default balancer is cooperative: it reports what is added and what is taken, never the whole.
	owned := map[int32]bool{}
	change := func(owns bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			for _, partition := range partitions[topic] {
				if owns {
					owned[partition] = true
				} else {
					delete(owned, partition)
				}
			}
			kit.SayAssigned(slices.Collect(maps.Keys(owned)))
		}
	}
	consumer := c.connect(
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(change(false)),
		kgo.OnPartitionsLost(change(false)),
	)
	defer consumer.Close()
	leaving, leave := context.WithCancel(context.Background())
	closed := kit.WhenStdinCloses()
	go func() {
		<-closed
		leave()
	}()
	for count != 0 && leaving.Err() == nil {
		limit := 100
		if count > 0 {
			limit = min(limit, count)
		}
		fetches := consumer.PollRecords(leaving, limit)
		fetches.EachError(func(topic string, partition int32, err error) {
			if !errors.Is(err, context.Canceled) {
				kit.Fail("fetch %s-%d: %v", topic, partition, err)
			}
		})
		records := fetches.Records()
		if len(records) == 0 {
			continue
		}
		ends := map[int32]int64{}
		for _, record := range records {
			sayRecord(record)
			ends[record.Partition] = record.Offset + 1
		}
		if err := consumer.CommitRecords(context.Background(), records...); err != nil {
			// A rebalance took the partitions away; their next owner reads the batch again.
			kit.SayNow("commit-failed", err)
		} else {
			kit.SayCommitted(ends)
		}
		if count > 0 {
			count -= len(records)
		}
	}
}

func (c client) Admin(name string) {
	ctx := context.Background()
	connection := c.connect()
	admin := kadm.NewClient(connection)
	defer admin.Close()
	topic, group := name, name+"-group"
	const place = int32(0)

	cluster := kit.Got(admin.BrokerMetadata(ctx))
	kit.Check(cluster.Cluster != "" && len(cluster.Brokers) > 0, "cluster has no id or brokers: %v", cluster)
	kit.Check(slices.Contains(cluster.Brokers.NodeIDs(), cluster.Controller), "controller is not a broker")
	kit.Step("describe-cluster")

	retention := "86400000"
	kit.Got(admin.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": &retention}, topic))
	_, err := admin.CreateTopic(ctx, 3, 1, nil, topic)
	kit.Check(errors.Is(err, kerr.TopicAlreadyExists), "second creation: %v", err)
	kit.Step("create-topic")

	details := func() kadm.TopicDetail {
		return kit.Got(admin.ListTopics(ctx, topic))[topic]
	}
	// Kafka answers a creation before all of it knows the topic.
	kit.WaitFor("the topic to be known", func() bool { return details().Err == nil })
	kit.Equal("partitions", details().Partitions.Numbers(), []int32{0, 1, 2})
	kit.Check(details().ID != kadm.TopicID{}, "topic has no id")
	kit.Step("describe-topic")

	kit.Must(kit.Got(admin.UpdatePartitions(ctx, 5, topic)).Error())
	kit.WaitFor("5 partitions", func() bool { return len(details().Partitions) == 5 })
	kit.Step("create-partitions")

	config := func(key string) string {
		resource := kit.Got(kit.Got(admin.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
		for _, entry := range resource.Configs {
			if entry.Key == key {
				return entry.MaybeValue()
			}
		}
		return "no such key"
	}
	kit.Equal("retention.ms", config("retention.ms"), retention)
	change := "7200000"
	alter := func(operation kadm.IncrementalOp, value *string) {
		answers := kit.Got(admin.AlterTopicConfigs(ctx,
			[]kadm.AlterConfig{{Op: operation, Name: "retention.ms", Value: value}}, topic))
		kit.Must(kit.Got(answers.On(topic, nil)).Err)
	}
	alter(kadm.SetConfig, &change)
	kit.WaitFor("retention.ms=7200000", func() bool { return config("retention.ms") == change })
	alter(kadm.DeleteConfig, nil)
	kit.WaitFor("the default of retention.ms", func() bool { return config("retention.ms") == "604800000" })
	kit.Step("alter-configs")

	producer := c.connect(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	now := time.Now().Truncate(time.Millisecond)
	var records []*kgo.Record
	for i := range 100 {
		at := now.Add(time.Duration(i-100) * time.Second)
		records = append(records, &kgo.Record{Partition: place, Value: []byte{byte(i)}, Timestamp: at})
	}
	results := producer.ProduceSync(ctx, records...)
	kit.Must(results.FirstErr())
	for i, result := range results {
		kit.Equal("offset of the idempotent producer", result.Record.Offset, int64(i))
	}
	kit.Step("idempotent-produce")

	described := kit.Got(admin.DescribeProducers(ctx, kadm.TopicsSet{topic: {place: {}}}))
	producers := described.SortedProducers()
	kit.Equal("active producers", len(producers), 1)
	id, _, err := producer.ProducerID(ctx)
	kit.Must(err)
	kit.Equal("producer id", producers[0].ProducerID, id)
	kit.Equal("last sequence", producers[0].LastSequence, int32(99))
	producer.Close()
	kit.Step("describe-producers")

	offset := func(listed kadm.ListedOffsets, err error) int64 {
		kit.Must(err)
		at, found := listed.Lookup(topic, place)
		kit.Check(found && at.Err == nil, "list offsets: %v", at)
		return at.Offset
	}
	kit.Equal("earliest", offset(admin.ListStartOffsets(ctx, topic)), int64(0))
	kit.Equal("latest", offset(admin.ListEndOffsets(ctx, topic)), int64(100))
	kit.Equal("largest timestamp", offset(admin.ListMaxTimestampOffsets(ctx, topic)), int64(99))
	middle := now.Add(-50500 * time.Millisecond).UnixMilli()
	kit.Equal("by timestamp", offset(admin.ListOffsetsAfterMilli(ctx, middle, topic)), int64(50))
	kit.Step("list-offsets")

	var cut kadm.Offsets
	cut.AddOffset(topic, place, 10, -1)
	kit.Must(kit.Got(admin.DeleteRecords(ctx, cut)).Error())
	kit.Equal("earliest after delete records", offset(admin.ListStartOffsets(ctx, topic)), int64(10))
	kit.Step("delete-records")

	var size int64
	for _, directories := range kit.Got(admin.DescribeAllLogDirs(ctx, nil)) {
		if at, found := directories.LookupPartition(topic, place); found {
			size += at.Size
		}
	}
	kit.Check(size > 0, "log directories show no bytes for %s-%d", topic, place)
	kit.Step("describe-log-dirs")

	consumer := c.connect(
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	waiting, cancel := context.WithTimeout(ctx, kit.Timeout)
	var seen []int64
	for len(seen) < 90 && waiting.Err() == nil {
		consumer.PollFetches(waiting).EachRecord(func(record *kgo.Record) { seen = append(seen, record.Offset) })
	}
	cancel()
	kit.Equal("records after delete records", len(seen), 90)
	kit.Equal("first record after delete records", seen[0], int64(10))
	kit.Must(consumer.CommitUncommittedOffsets(ctx))
	state := func() *kadm.DescribedGroup {
		described := kit.Got(admin.DescribeGroups(ctx, group))[group]
		return &described
	}
	kit.Equal("group state", state().State, "Stable")
	kit.Equal("group members", len(state().Members), 1)
	kit.Equal("assigned partitions", len(state().AssignedPartitions()[topic]), 5)
	kit.Step("describe-group")
	_, listed := kit.Got(admin.ListGroups(ctx))[group]
	kit.Check(listed, "list groups leaves out %s", group)
	kit.Step("list-groups")
	consumer.Close()

	committed := func() map[int32]int64 {
		found := map[int32]int64{}
		kit.Got(admin.FetchOffsets(ctx, group)).Each(func(at kadm.OffsetResponse) { found[at.Partition] = at.At })
		return found
	}
	kit.Equal("committed offset", committed()[place], int64(100))
	kit.WaitFor("an empty group", func() bool { return state().State == "Empty" })
	var back kadm.Offsets
	back.AddOffset(topic, place, 42, -1)
	kit.Must(kit.Got(admin.CommitOffsets(ctx, group, back)).Error())
	kit.Equal("altered offset", committed()[place], int64(42))
	kit.Must(kit.Got(admin.DeleteOffsets(ctx, group, kadm.TopicsSet{topic: {place: {}}})).Error())
	_, still := committed()[place]
	kit.Check(!still, "the deleted offset is still there")
	kit.Step("group-offsets")

	kit.Must(kit.Got(admin.DeleteGroups(ctx, group)).Error())
	err = kit.Got(admin.DeleteGroups(ctx, group)).Error()
	kit.Check(errors.Is(err, kerr.GroupIDNotFound), "second deletion: %v", err)
	kit.Step("delete-group")

	kit.Must(kit.Got(admin.DeleteTopics(ctx, topic)).Error())
	kit.WaitFor("the topic to be gone", func() bool { return !kit.Got(admin.ListTopics(ctx)).Has(topic) })
	kit.Step("delete-topic")
}
