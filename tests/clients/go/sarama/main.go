// sarama under test. Verbs and lines: tests/clients/README.md.
package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"logstreams/clients/kit"
)

func main() {
	kit.Main(func(bootstrap string) kit.Client { return client{bootstrap} })
}

type client struct{ bootstrap string }

// config is sarama's default with the protocol versions of a current server.
func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Consumer.Return.Errors = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	return config
}

func (c client) connect() sarama.Client {
	return kit.Got(sarama.NewClient([]string{c.bootstrap}, config()))
}

func (c client) Create(topics []string, partitions int, configs map[string]string) {
	admin := kit.Got(sarama.NewClusterAdmin([]string{c.bootstrap}, config()))
	defer admin.Close()
	entries := map[string]*string{}
	for key, value := range configs {
		entries[key] = &value
	}
	detail := sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1, ConfigEntries: entries}
	for _, topic := range topics {
		kit.Must(admin.CreateTopic(topic, &detail, false))
	}
}

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func (c client) Produce(targets []kit.Target, idempotent, plain bool) {
	kit.FlushRegularly()
	var producers []sarama.AsyncProducer
	var unanswered, answers sync.WaitGroup
	for _, target := range targets {
		config := config()
		config.Producer.Compression = codecs[target.Codec]
		config.Producer.RequiredAcks = sarama.WaitForAll
		config.Producer.Return.Successes = true
		config.Producer.Flush.Frequency = 5 * time.Millisecond
		config.Producer.Retry.Max = 1200
		config.Producer.Idempotent = idempotent
		// Sarama keeps the order of retried batches only with one request in flight.
		config.Net.MaxOpenRequests = 1
		producer := kit.Got(sarama.NewAsyncProducer([]string{c.bootstrap}, config))
		producers = append(producers, producer)
		answers.Add(2)
		go func() {
			defer answers.Done()
			for sent := range producer.Successes() {
				kit.Say("ack", sent.Topic, sent.Metadata, sent.Partition, sent.Offset)
				unanswered.Done()
			}
		}()
		go func() {
			defer answers.Done()
			for failed := range producer.Errors() {
				kit.Say("failed", failed.Msg.Topic, failed.Msg.Metadata, failed.Err)
				unanswered.Done()
			}
		}()
	}
	kit.Records(func(record kit.Record) {
		for i, producer := range producers {
			message := &sarama.ProducerMessage{
				Topic:     targets[i].Topic,
				Timestamp: record.Timestamp,
				Metadata:  record.Line,
			}
			if record.Key != nil {
				message.Key = sarama.ByteEncoder(record.Key)
			}
			if record.Value != nil {
				message.Value = sarama.ByteEncoder(record.Value)
			}
			for _, header := range record.Headers {
				message.Headers = append(message.Headers,
					sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
			}
			unanswered.Add(1)
			producer.Input() <- message
		}
	})
	// A producer that is closed gives up what it is just sending again.
	unanswered.Wait()
	for _, producer := range producers {
		producer.AsyncClose()
	}
	answers.Wait()
}

func sayMessage(message *sarama.ConsumerMessage) {
	var headers []kit.Header
	for _, header := range message.Headers {
		headers = append(headers, kit.Header{Name: string(header.Key), Value: header.Value})
	}
	kit.SayRecord(message.Topic, message.Partition, message.Offset, message.Timestamp,
		message.Key, message.Value, headers)
}

func (c client) Consume(topics []string) {
	connection := c.connect()
	defer connection.Close()
	consumer := kit.Got(sarama.NewConsumerFromClient(connection))
	var readers sync.WaitGroup
	for _, topic := range topics {
		for _, partition := range kit.Got(connection.Partitions(topic)) {
			start := kit.Got(connection.GetOffset(topic, partition, sarama.OffsetOldest))
			end := kit.Got(connection.GetOffset(topic, partition, sarama.OffsetNewest))
			if start == end {
				continue
			}
			reader := kit.Got(consumer.ConsumePartition(topic, partition, sarama.OffsetOldest))
			readers.Go(func() {
				for {
					select {
					case message := <-reader.Messages():
						sayMessage(message)
						if message.Offset+1 >= end {
							kit.Must(reader.Close())
							return
						}
					case err := <-reader.Errors():
						kit.Fail("%v", err)
					}
				}
			})
		}
	}
	readers.Wait()
}

// mover hands the claims of a session to one transactional producer in batches.
type mover struct {
	producer      sarama.SyncProducer
	group, output string
	mutex         sync.Mutex
	count         int
	attempt       int
	done          context.CancelFunc
}

func (m *mover) Setup(sarama.ConsumerGroupSession) error { return nil }

func (m *mover) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *mover) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			batch := []*sarama.ConsumerMessage{message}
			for waiting := true; waiting && len(batch) < 50; {
				select {
				case message, open := <-claim.Messages():
					if open {
						batch = append(batch, message)
					}
					waiting = open
				default:
					waiting = false
				}
			}
			m.mutex.Lock()
			for !m.move(batch) {
			}
			m.count -= len(batch)
			if m.count <= 0 {
				m.done()
			}
			m.mutex.Unlock()
		case <-session.Context().Done():
			return nil
		}
	}
}

// move says whether the transaction was committed.
func (m *mover) move(batch []*sarama.ConsumerMessage) bool {
	m.attempt++
	kit.Must(m.producer.BeginTxn())
	for _, message := range batch {
		moved := &sarama.ProducerMessage{Topic: m.output, Value: sarama.ByteEncoder(message.Value)}
		if message.Key != nil {
			moved.Key = sarama.ByteEncoder(message.Key)
		}
		_, _, err := m.producer.SendMessage(moved)
		kit.Must(err)
	}
	kit.Must(m.producer.AddMessageToTxn(batch[len(batch)-1], m.group, nil))
	if m.attempt%3 == 0 {
		kit.Must(m.producer.AbortTxn())
		kit.SayNow("aborted", len(batch))
		return false
	}
	kit.Must(m.producer.CommitTxn())
	kit.SayNow("committed", len(batch))
	return true
}

func (c client) Transact(id, group, input, output string, count int) {
	producing := config()
	producing.Producer.Transaction.ID = id
	producing.Producer.Idempotent = true
	producing.Producer.RequiredAcks = sarama.WaitForAll
	producing.Producer.Return.Successes = true
	producing.Net.MaxOpenRequests = 1
	producer := kit.Got(sarama.NewSyncProducer([]string{c.bootstrap}, producing))
	defer producer.Close()
	reading := config()
	reading.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer := kit.Got(sarama.NewConsumerGroup([]string{c.bootstrap}, group, reading))
	defer consumer.Close()
	leaving, leave := context.WithCancel(context.Background())
	mover := &mover{producer: producer, group: group, output: output, count: count, done: leave}
	for leaving.Err() == nil {
		err := consumer.Consume(leaving, []string{input}, mover)
		kit.Check(err == nil || errors.Is(err, context.Canceled), "consume: %v", err)
	}
}

// member hands the claims of a session to its handler in batches and commits each.
type member struct {
	topic string
	mutex sync.Mutex
	count int
	done  context.CancelFunc
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	kit.SayAssigned(session.Claims()[m.topic])
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.batch(session, claim, message)
		case <-session.Context().Done():
			return nil
		}
	}
}

// batch prints and commits what has already arrived, at most a hundred records.
func (m *member) batch(
	session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim, message *sarama.ConsumerMessage,
) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var last *sarama.ConsumerMessage
	for n := 1; message != nil && m.count != 0; n++ {
		sayMessage(message)
		session.MarkMessage(message, "")
		last, message = message, nil
		m.count--
		if n < 100 && m.count != 0 {
			select {
			case message = <-claim.Messages():
			default:
			}
		}
	}
	if last != nil {
		session.Commit()
		kit.SayCommitted(map[int32]int64{last.Partition: last.Offset + 1})
	}
	if m.count == 0 {
		m.done()
	}
}

func (c client) Member(group, topic string, count int) {
	consumer := kit.Got(sarama.NewConsumerGroup([]string{c.bootstrap}, group, config()))
	leaving, leave := context.WithCancel(context.Background())
	closed := kit.WhenStdinCloses()
	go func() {
		<-closed
		leave()
	}()
	go func() {
		for err := range consumer.Errors() {
			// A commit that a rebalance overtook; the partitions' next owner reads the batch again.
			kit.SayNow("commit-failed", err)
		}
	}()
	handler := &member{topic: topic, count: count, done: leave}
	for leaving.Err() == nil {
		err := consumer.Consume(leaving, []string{topic}, handler)
		kit.Check(err == nil || leaving.Err() != nil, "consume: %v", err)
	}
	kit.Must(consumer.Close())
}

func (c client) Admin(name string) {
	connection := c.connect()
	admin := kit.Got(sarama.NewClusterAdminFromClient(connection))
	defer admin.Close()
	topic, group := name, name+"-group"
	const place = int32(0)

	brokers, controller, err := admin.DescribeCluster()
	kit.Must(err)
	kit.Check(len(brokers) > 0, "cluster has no brokers")
	isBroker := false
	for _, broker := range brokers {
		isBroker = isBroker || broker.ID() == controller
	}
	kit.Check(isBroker, "controller %d is not a broker", controller)
	kit.Step("describe-cluster")

	retention := "86400000"
	detail := sarama.TopicDetail{
		NumPartitions:     3,
		ReplicationFactor: 1,
		ConfigEntries:     map[string]*string{"retention.ms": &retention},
	}
	kit.Must(admin.CreateTopic(topic, &detail, false))
	err = admin.CreateTopic(topic, &detail, false)
	kit.Check(errors.Is(err, sarama.ErrTopicAlreadyExists), "second creation: %v", err)
	kit.Step("create-topic")

	details := func() *sarama.TopicMetadata { return kit.Got(admin.DescribeTopics([]string{topic}))[0] }
	// Kafka answers a creation before all of it knows the topic.
	kit.WaitFor("the topic to be known", func() bool { return details().Err == sarama.ErrNoError })
	kit.Equal("partitions", len(details().Partitions), 3)
	kit.Step("describe-topic")

	kit.Must(admin.CreatePartitions(topic, 5, nil, false))
	kit.WaitFor("5 partitions", func() bool { return len(details().Partitions) == 5 })
	kit.Step("create-partitions")

	setting := func() string {
		resource := sarama.ConfigResource{
			Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"},
		}
		entries := kit.Got(admin.DescribeConfig(resource))
		kit.Equal("described configs", len(entries), 1)
		return entries[0].Value
	}
	kit.Equal("retention.ms", setting(), retention)
	change := "7200000"
	alter := func(entry sarama.IncrementalAlterConfigsEntry) {
		entries := map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": entry}
		kit.Must(admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false))
	}
	alter(sarama.IncrementalAlterConfigsEntry{
		Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &change,
	})
	kit.WaitFor("retention.ms=7200000", func() bool { return setting() == change })
	alter(sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete})
	kit.WaitFor("the default of retention.ms", func() bool { return setting() == "604800000" })
	kit.Step("alter-configs")

	settings := config()
	settings.Producer.Idempotent = true
	settings.Producer.RequiredAcks = sarama.WaitForAll
	settings.Producer.Return.Successes = true
	settings.Producer.Partitioner = sarama.NewManualPartitioner
	settings.Net.MaxOpenRequests = 1
	producer := kit.Got(sarama.NewSyncProducer([]string{c.bootstrap}, settings))
	now := time.Now().Truncate(time.Millisecond)
	for i := range 100 {
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic:     topic,
			Partition: place,
			Value:     sarama.ByteEncoder([]byte{byte(i)}),
			Timestamp: now.Add(time.Duration(i-100) * time.Second),
		})
		kit.Must(err)
		kit.Equal("offset of the idempotent producer", offset, int64(i))
	}
	kit.Must(producer.Close())
	kit.Step("idempotent-produce")

	offset := func(at int64) int64 { return kit.Got(connection.GetOffset(topic, place, at)) }
	kit.Must(connection.RefreshMetadata(topic))
	kit.Equal("earliest", offset(sarama.OffsetOldest), int64(0))
	kit.Equal("latest", offset(sarama.OffsetNewest), int64(100))
	kit.Equal("by timestamp", offset(now.Add(-50500*time.Millisecond).UnixMilli()), int64(50))
	kit.Step("list-offsets")

	kit.Must(admin.DeleteRecords(topic, map[int32]int64{place: 10}))
	kit.Equal("earliest after delete records", offset(sarama.OffsetOldest), int64(10))
	kit.Step("delete-records")

	size := int64(0)
	for _, directories := range kit.Got(admin.DescribeLogDirs([]int32{brokers[0].ID()})) {
		for _, directory := range directories {
			for _, described := range directory.Topics {
				for _, partition := range described.Partitions {
					if described.Topic == topic {
						size += partition.Size
					}
				}
			}
		}
	}
	kit.Check(len(brokers) > 1 || size > 0, "log directories show no bytes for %s", topic)
	kit.Step("describe-log-dirs")

	consumer := kit.Got(sarama.NewConsumerGroup([]string{c.bootstrap}, group, config()))
	waiting, cancel := context.WithTimeout(context.Background(), kit.Timeout)
	reader := &counter{wanted: 90, found: make(chan struct{}), release: make(chan struct{})}
	ended := make(chan error)
	go func() { ended <- consumer.Consume(waiting, []string{topic}, reader) }()
	select {
	case <-reader.found:
	case <-waiting.Done():
		kit.Fail("records after delete records: expected 90, found %d", reader.seen)
	}
	described := func() *sarama.GroupDescription {
		return kit.Got(admin.DescribeConsumerGroups([]string{group}))[0]
	}
	kit.Equal("group state", described().State, "Stable")
	kit.Equal("group members", len(described().Members), 1)
	kit.Step("describe-group")
	_, listed := kit.Got(admin.ListConsumerGroups())[group]
	kit.Check(listed, "list groups leaves out %s", group)
	kit.Step("list-groups")
	close(reader.release)
	cancel()
	<-ended
	kit.Must(consumer.Close())

	committed := func() int64 {
		answer := kit.Got(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {place}}))
		return answer.GetBlock(topic, place).Offset
	}
	kit.Equal("committed offset", committed(), int64(100))
	kit.WaitFor("an empty group", func() bool { return described().State == "Empty" })
	kit.Must(admin.DeleteConsumerGroupOffset(group, topic, place))
	kit.Equal("deleted offset", committed(), int64(-1))
	kit.Step("group-offsets")

	kit.Must(admin.DeleteConsumerGroup(group))
	err = admin.DeleteConsumerGroup(group)
	kit.Check(errors.Is(err, sarama.ErrGroupIDNotFound), "second deletion: %v", err)
	kit.Step("delete-group")

	kit.Must(admin.DeleteTopic(topic))
	kit.WaitFor("the topic to be gone", func() bool {
		_, found := kit.Got(admin.ListTopics())[topic]
		return !found
	})
	kit.Step("delete-topic")
}

// counter reads until it has seen the wanted number of records, commits, and stays until it is released.
type counter struct {
	mutex          sync.Mutex
	wanted, seen   int
	found, release chan struct{}
}

func (c *counter) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (c *counter) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (c *counter) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			session.MarkMessage(message, "")
			c.mutex.Lock()
			c.seen++
			if c.seen == c.wanted {
				session.Commit()
				close(c.found)
			}
			c.mutex.Unlock()
		case <-c.release:
			return nil
		case <-session.Context().Done():
			return nil
		}
	}
}
