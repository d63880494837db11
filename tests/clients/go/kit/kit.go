// Package kit is what the Go client programs share: the verbs' arguments and the lines they read and write.
// The contract is written in tests/clients/README.md. Everything here is about text; nothing talks to a server.
package kit

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Timeout bounds every wait for a state that an administrative call should bring about.
const Timeout = 60 * time.Second

// Target is one topic and the codec to produce to it with.
type Target struct{ Topic, Codec string }

// Record is one line of the harness's input.
type Record struct {
	Line       int
	Timestamp  time.Time
	Key, Value []byte
	Headers    []Header
}

// Header is one record header.
type Header struct {
	Name  string
	Value []byte
}

// Client is the verbs.
type Client interface {
	Create(topics []string, partitions int, configs map[string]string)
	Produce(targets []Target, idempotent, plain bool)
	Consume(topics []string)
	Transact(id, group, input, output string, count int)
	Member(group, topic string, count int)
	Admin(name string)
}

// Main parses the command line and calls one verb of the client that connect returns.
func Main(connect func(bootstrap string) Client) {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	client, verb := connect(*bootstrap), flag.Arg(0)
	Check(verb != "", "usage: -bootstrap HOST:PORT VERB ...")
	verbFlags := flag.NewFlagSet(verb, flag.ExitOnError)
	idempotent := verbFlags.Bool("idempotent", false, "")
	plain := verbFlags.Bool("plain", false, "")
	count := verbFlags.Int("count", -1, "")
	Must(verbFlags.Parse(flag.Args()[1:]))
	args := verbFlags.Args()
	switch verb {
	case "create":
		partitions := Got(strconv.Atoi(args[1]))
		configs := map[string]string{}
		for _, pair := range args[2:] {
			key, value, _ := strings.Cut(pair, "=")
			configs[key] = value
		}
		client.Create(strings.Split(args[0], ","), partitions, configs)
	case "produce":
		var targets []Target
		for _, target := range args {
			topic, codec, _ := strings.Cut(target, ":")
			targets = append(targets, Target{topic, codec})
		}
		client.Produce(targets, *idempotent, *plain)
	case "consume":
		client.Consume(args)
	case "transact":
		client.Transact(args[0], args[1], args[2], args[3], Got(strconv.Atoi(args[4])))
	case "member":
		client.Member(args[0], args[1], *count)
	case "admin":
		client.Admin(args[0])
	default:
		Fail("unknown verb %q", verb)
	}
	Flush()
}

// Records hands each line of standard input to the callback as it arrives.
func Records(each func(Record)) {
	reader := bufio.NewReaderSize(os.Stdin, 1<<20)
	for line := 0; ; line++ {
		text, err := reader.ReadString('\n')
		if err == io.EOF {
			return
		}
		Must(err)
		fields := strings.Split(strings.TrimSuffix(text, "\n"), "\t")
		record := Record{
			Line:      line,
			Timestamp: time.UnixMilli(Got(strconv.ParseInt(fields[0], 10, 64))),
			Key:       unhex(fields[1]),
			Value:     unhex(fields[2]),
		}
		for _, pair := range strings.Split(fields[3], ",") {
			if name, value, found := strings.Cut(pair, ":"); found {
				record.Headers = append(record.Headers, Header{name, unhex(value)})
			}
		}
		each(record)
	}
}

func unhex(field string) []byte {
	if field == "-" {
		return nil
	}
	return Got(hex.DecodeString(field))
}

func tohex(data []byte) string {
	if data == nil {
		return "-"
	}
	return hex.EncodeToString(data)
}

var (
	output      = bufio.NewWriterSize(os.Stdout, 1<<20)
	outputMutex sync.Mutex
)

// Say writes one line of tab-separated fields.
func Say(fields ...any) {
	outputMutex.Lock()
	defer outputMutex.Unlock()
	for i, field := range fields {
		if i > 0 {
			output.WriteByte('\t')
		}
		fmt.Fprint(output, field)
	}
	output.WriteByte('\n')
}

// SayNow writes one line and hands all lines to the harness.
func SayNow(fields ...any) {
	Say(fields...)
	Flush()
}

// SayRecord writes one consumed record.
func SayRecord(topic string, partition int32, offset int64, at time.Time, key, value []byte, headers []Header) {
	var pairs []string
	for _, header := range headers {
		pairs = append(pairs, header.Name+":"+tohex(header.Value))
	}
	Say("record", topic, partition, offset, at.UnixMilli(), tohex(key), tohex(value), strings.Join(pairs, ","))
}

// SayCommitted writes the offsets that a commit stored.
func SayCommitted(ends map[int32]int64) {
	var pairs []string
	for partition, offset := range ends {
		pairs = append(pairs, fmt.Sprintf("%d:%d", partition, offset))
	}
	SayNow("committed", strings.Join(pairs, ","))
}

// SayAssigned writes the partitions that the group gave to this member.
func SayAssigned(partitions []int32) {
	var texts []string
	for _, partition := range slices.Sorted(slices.Values(partitions)) {
		texts = append(texts, strconv.Itoa(int(partition)))
	}
	SayNow("assigned", strings.Join(texts, ","))
}

// Flush hands all written lines to the harness.
func Flush() {
	outputMutex.Lock()
	defer outputMutex.Unlock()
	Must(output.Flush())
}

// FlushRegularly keeps acknowledgements flowing to a harness that acts on them.
func FlushRegularly() {
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			Flush()
		}
	}()
}

// WhenStdinCloses returns a channel that closes when the harness politely asks us to leave.
func WhenStdinCloses() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return closed
}

// Step tells the harness that one administrative step went well.
func Step(name string) { SayNow("step", name) }

// Fail ends the program with a message.
func Fail(format string, args ...any) {
	Flush()
	fmt.Fprintf(os.Stderr, "check failed: "+format+"\n", args...)
	os.Exit(1)
}

// Must fails on an error.
func Must(err error) {
	if err != nil {
		Fail("%v", err)
	}
}

// Got unwraps a value or fails on the error.
func Got[T any](value T, err error) T {
	Must(err)
	return value
}

// Equal fails when the two differ.
func Equal(what string, seen, expected any) {
	if !reflect.DeepEqual(seen, expected) {
		Fail("%s: expected %v, found %v", what, expected, seen)
	}
}

// Check fails when the condition does not hold.
func Check(condition bool, format string, args ...any) {
	if !condition {
		Fail(format, args...)
	}
}

// WaitFor polls until the condition holds.
func WaitFor(what string, condition func() bool) {
	for deadline := time.Now().Add(Timeout); !condition(); time.Sleep(50 * time.Millisecond) {
		Check(time.Now().Before(deadline), "waited in vain for %s", what)
	}
}
