// go-redis under test. Verbs and lines: tests/clients/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"logstreams/clients/kit"
)

const retryEvery = 50 * time.Millisecond

var ctx = context.Background()

// What differs from server to server and from moment to moment.
var volatileFields = []string{"Idle", "Inactive", "RadixTreeKeys", "RadixTreeNodes", "SeenTime"}

type program struct {
	options redis.Options
}

func (p program) connect() *redis.Client {
	options := p.options
	return redis.NewClient(&options)
}

// plain is the decoded answer as JSON knows it, without what is volatile.
func plain(value any) any {
	var decoded any
	kit.Must(json.Unmarshal(kit.Got(json.Marshal(value)), &decoded))
	return scrub(decoded)
}

func scrub(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range volatileFields {
			delete(value, name)
		}
		for name, inner := range value {
			value[name] = scrub(inner)
		}
	case []any:
		for at, inner := range value {
			value[at] = scrub(inner)
		}
	}
	return value
}

// step prints what a call brought: an answer, or the first word of an error. The arguments are a call's results.
func step(name string) func(answer any, err error) {
	return func(answer any, err error) {
		seen := plain(answer)
		var refused redis.Error
		switch {
		case errors.Is(err, redis.Nil):
			seen = nil
		case errors.As(err, &refused):
			word, _, _ := strings.Cut(refused.Error(), " ")
			seen = map[string]any{"error": word}
		default:
			kit.Must(err)
		}
		kit.SayNow("step", name, string(kit.Got(json.Marshal(seen))))
	}
}

// sorted steps hold answers that come in any order.
func sorted(name string, values []string, err error) {
	slices.Sort(values)
	step(name)(values, err)
}

func later(action func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		time.Sleep(200 * time.Millisecond)
		action()
		close(done)
	}()
	return done
}

func (p program) add(r *redis.Client, stream string, values ...string) string {
	return kit.Got(r.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: values}).Result())
}

// call steps hold a command's result.
func call[T any](name string, command interface{ Result() (T, error) }) {
	value, err := command.Result()
	step(name)(value, err)
}

func (p program) streams(prefix string) {
	r, s, t := p.connect(), prefix+"s", prefix+"t"
	read := func(count int64, block time.Duration, streams ...string) *redis.XStreamSliceCmd {
		return r.XRead(ctx, &redis.XReadArgs{Streams: streams, Count: count, Block: block})
	}
	const atOnce = -1
	call("xlen of nothing", r.XLen(ctx, s))
	call("xread of nothing", read(0, atOnce, s, "0"))
	call("xrange of nothing", r.XRange(ctx, s, "-", "+"))
	call("xadd nomkstream", r.XAdd(ctx, &redis.XAddArgs{Stream: s, NoMkStream: true, Values: []string{"value", "x"}}))
	call("exists after nomkstream", r.Exists(ctx, s))
	var ids []string
	for n := range 10 {
		value := string([]byte{byte(n), 127, 0, 10, 13})
		ids = append(ids, p.add(r, s, "key", fmt.Sprint("k", n), "value", value, "extra", fmt.Sprint("größe ", n), "empty", ""))
		time.Sleep(2 * time.Millisecond)
	}
	call("xlen", r.XLen(ctx, s))
	call("xrange", r.XRange(ctx, s, "-", "+"))
	call("xrange count", r.XRangeN(ctx, s, "-", "+", 3))
	call("xrange between", r.XRange(ctx, s, ids[2], ids[5]))
	call("xrange exclusive", r.XRange(ctx, s, "("+ids[2], "("+ids[5]))
	call("xrange backwards is empty", r.XRange(ctx, s, ids[5], ids[2]))
	call("xrevrange", r.XRevRange(ctx, s, "+", "-"))
	call("xrevrange count", r.XRevRangeN(ctx, s, ids[6], ids[1], 4))
	call("xrange of a bad id", r.XRange(ctx, s, "abc", "+"))
	time.Sleep(2 * time.Millisecond) // within one millisecond Redis gives entries of two streams the same id
	for n := range 3 {
		p.add(r, t, "value", fmt.Sprint("t", n))
	}
	call("xread two streams", read(0, atOnce, s, t, ids[7], "0"))
	call("xread count", read(2, atOnce, s, t, "0", "0"))
	call("xread at the end", read(0, atOnce, s, t, "$", "$"))
	call("xread block in vain", read(0, 50*time.Millisecond, s, "$"))
	written := later(func() { p.add(p.connect(), t, "key", "late", "value", "woken") })
	call("xread block", read(0, 10*time.Second, s, t, "$", "$"))
	<-written
	born := prefix + "born"
	written = later(func() { p.add(p.connect(), born, "value", "first") })
	call("xread block on a stream to come", read(0, 10*time.Second, born, "$"))
	<-written
	call("xinfo stream", r.XInfoStream(ctx, s))
	call("xinfo stream full", r.XInfoStreamFull(ctx, t, 2))
	call("xtrim maxlen", r.XTrimMaxLen(ctx, s, 6))
	call("xlen after xtrim", r.XLen(ctx, s))
	call("xrange after xtrim", r.XRange(ctx, s, "-", "+"))
	call("xtrim minid", r.XTrimMinID(ctx, s, ids[7]))
	call("xrange after minid", r.XRange(ctx, s, "-", "+"))
	time.Sleep(2 * time.Millisecond) // as above
	call("xadd maxlen", r.XAdd(ctx, &redis.XAddArgs{Stream: s, MaxLen: 2, Values: []string{"value", "a"}}))
	call("xlen after xadd maxlen", r.XLen(ctx, s))
	last := p.add(r, s, "value", "b")
	call("xadd minid", r.XAdd(ctx, &redis.XAddArgs{Stream: s, MinID: last, Values: []string{"value", "c"}}))
	call("xrange after xadd minid", r.XRange(ctx, s, "-", "+"))
	call("xadd about maxlen",
		r.XAdd(ctx, &redis.XAddArgs{Stream: s, MaxLen: 1000, Approx: true, Values: []string{"value", "d"}}))
	call("xtrim about maxlen", r.XTrimMaxLenApprox(ctx, s, 1000, 0))
	call("xlen in the end", r.XLen(ctx, s))
}

func (p program) groups(prefix string) {
	r, s := p.connect(), prefix+"s"
	read := func(group, consumer, start string, count int64, block time.Duration, noAck bool) *redis.XStreamSliceCmd {
		return r.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: group, Consumer: consumer, Streams: []string{s, start}, Count: count, Block: block, NoAck: noAck,
		})
	}
	pending := func(start, end string, count int64, consumer string, idle time.Duration) *redis.XPendingExtCmd {
		return r.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: s, Group: "g", Start: start, End: end, Count: count, Consumer: consumer, Idle: idle,
		})
	}
	const atOnce = -1
	call("create without a stream", r.XGroupCreate(ctx, s, "g", "$"))
	call("read without a group", read("g", "a", ">", 0, atOnce, false))
	call("create mkstream", r.XGroupCreateMkStream(ctx, s, "g", "$"))
	call("create twice", r.XGroupCreateMkStream(ctx, s, "g", "$"))
	call("read an empty stream", read("g", "a", ">", 0, atOnce, false))
	var ids []string
	for n := range 12 {
		ids = append(ids, p.add(r, s, "key", fmt.Sprint("k", n), "value", fmt.Sprint("v", n)))
	}
	call("create consumer", r.XGroupCreateConsumer(ctx, s, "g", "b"))
	call("create consumer twice", r.XGroupCreateConsumer(ctx, s, "g", "b"))
	call("a reads", read("g", "a", ">", 4, atOnce, false))
	call("b reads", read("g", "b", ">", 3, atOnce, false))
	call("history of a", read("g", "a", "0", 0, atOnce, false))
	call("history of a, second", read("g", "a", ids[1], 1, atOnce, false))
	call("history of c", read("g", "c", "0", 0, atOnce, false))
	call("pending", r.XPending(ctx, s, "g"))
	call("pending range", pending("-", "+", 10, "", 0))
	call("pending of b", pending("-", "+", 2, "b", 0))
	call("pending between", pending(ids[1], ids[4], 10, "", 0))
	call("pending for an hour", pending("-", "+", 10, "", time.Hour))
	call("ack", r.XAck(ctx, s, "g", ids[0], ids[1]))
	call("ack again", r.XAck(ctx, s, "g", ids[0], ids[5], "1-1"))
	call("info groups", r.XInfoGroups(ctx, s))
	call("info consumers", r.XInfoConsumers(ctx, s, "g"))
	call("noack", read("g", "a", ">", 2, atOnce, true))
	call("pending after noack", r.XPending(ctx, s, "g"))
	claim := func(consumer string, idle time.Duration, ids ...string) *redis.XClaimArgs {
		return &redis.XClaimArgs{Stream: s, Group: "g", Consumer: consumer, MinIdle: idle, Messages: ids}
	}
	call("claim", r.XClaim(ctx, claim("b", 0, ids[2], ids[3])))
	call("claim too young", r.XClaim(ctx, claim("a", time.Hour, ids[2])))
	call("claim just ids", r.XClaimJustID(ctx, claim("a", 0, ids[3])))
	call("pending after claims", pending("-", "+", 20, "", 0))
	autoClaim := func(consumer, start string, idle time.Duration, count int64) *redis.XAutoClaimArgs {
		return &redis.XAutoClaimArgs{
			Stream: s, Group: "g", Consumer: consumer, MinIdle: idle, Start: start, Count: count,
		}
	}
	auto := func(name string, args *redis.XAutoClaimArgs) {
		entries, next, err := r.XAutoClaim(ctx, args).Result()
		step(name)([]any{next, entries}, err)
	}
	auto("autoclaim", autoClaim("c", "0-0", 0, 2))
	auto("autoclaim on", autoClaim("c", ids[4], 0, 10))
	justIDs, next, err := r.XAutoClaimJustID(ctx, autoClaim("d", "0-0", 0, 100)).Result()
	step("autoclaim just ids")([]any{next, justIDs}, err)
	auto("autoclaim too young", autoClaim("a", "0-0", time.Hour, 100))
	call("pending after autoclaim", pending("-", "+", 20, "", 0))
	kit.Got(r.XTrimMaxLen(ctx, s, 9).Result())
	auto("autoclaim what is trimmed", autoClaim("a", "0-0", 0, 3))
	call("pending after the trim", r.XPending(ctx, s, "g"))
	call("del consumer", r.XGroupDelConsumer(ctx, s, "g", "a"))
	written := later(func() { p.add(p.connect(), s, "value", "woken") })
	read("g", "e", ">", 0, atOnce, false)
	call("read block", read("g", "e", ">", 0, 10*time.Second, false))
	<-written
	call("read block in vain", read("g", "e", ">", 0, 50*time.Millisecond, false))
	call("set id", r.XGroupSetID(ctx, s, "g", ids[9]))
	call("read after set id", read("g", "f", ">", 0, atOnce, false))
	call("second group", r.XGroupCreate(ctx, s, "h", "0"))
	call("read of the second", read("h", "a", ">", 2, atOnce, false))
	call("destroy", r.XGroupDestroy(ctx, s, "h"))
	call("destroy twice", r.XGroupDestroy(ctx, s, "h"))
	call("read of the destroyed", read("h", "a", ">", 0, atOnce, false))
}

func (p program) keys(prefix string) {
	r := p.connect()
	var names []string
	for n := range 5 {
		names = append(names, fmt.Sprint(prefix, n))
		p.add(r, names[n], "value", "x")
	}
	missing := prefix + "missing"
	call("type", r.Type(ctx, names[0]))
	call("type of nothing", r.Type(ctx, missing))
	call("exists", r.Exists(ctx, names[0], names[1], missing, names[0]))
	found, err := r.Keys(ctx, prefix+"*").Result()
	sorted("keys", found, err)
	found, err = r.Keys(ctx, prefix+"[0-2]").Result()
	sorted("keys by class", found, err)
	scanned := func(name string, page *redis.ScanCmd) {
		var found []string
		iterator := page.Iterator()
		for iterator.Next(ctx) {
			found = append(found, iterator.Val())
		}
		slices.Sort(found)
		step(name)(slices.Compact(found), iterator.Err())
	}
	scanned("scan", r.Scan(ctx, 0, prefix+"*", 2))
	scanned("scan streams", r.ScanType(ctx, 0, prefix+"*", 10, "stream"))
	scanned("scan strings", r.ScanType(ctx, 0, prefix+"*", 10, "string"))
	call("del", r.Del(ctx, names[0], names[1], missing))
	call("exists after del", r.Exists(ctx, names...))
	call("xlen after del", r.XLen(ctx, names[0]))
	call("xinfo after del", r.XInfoStream(ctx, names[0]))
	p.add(r, names[0], "value", "anew")
	call("after birth anew", r.XRange(ctx, names[0], "-", "+"))
	call("echo", r.Echo(ctx, "größe"))
	call("ping", r.Ping(ctx))
	call("wrong number of arguments", r.Do(ctx, "XLEN"))
	call("no such command", r.Do(ctx, "NOSUCH", "x"))
}

func (p program) pubsub(prefix string) {
	r, a, b := p.connect(), prefix+"a", prefix+"b"
	call("publish to nobody", r.Publish(ctx, a, "lost"))
	listener := r.Subscribe(ctx, a, b)
	next := func(name string, count int) {
		var seen []string
		for range count {
			message := kit.Got(listener.ReceiveTimeout(ctx, kit.Timeout))
			seen = append(seen, fmt.Sprintf("%T %+q", message, message))
		}
		if count == 2 {
			// A pattern and a channel may be served in either order.
			slices.Sort(seen)
		}
		slices.SortStableFunc(seen, func(one, two string) int {
			one, _, _ = strings.Cut(one, ": ")
			two, _, _ = strings.Cut(two, ": ")
			return strings.Compare(one, two)
		})
		step(name)(seen, nil)
	}
	next("subscribed", 2)
	call("published", r.Publish(ctx, a, "1"))
	call("published binary", r.Publish(ctx, b, []byte{0, 255, 13, 10}))
	call("published nothing", r.Publish(ctx, a, ""))
	// In order within a channel; channels are logs of their own.
	next("messages", 3)
	kit.Must(listener.PSubscribe(ctx, prefix+"*"))
	next("pattern", 1)
	call("published to both", r.Publish(ctx, a, "both"))
	next("both", 2)
	found, err := r.PubSubChannels(ctx, prefix+"*").Result()
	sorted("channels", found, err)
	call("numsub", r.PubSubNumSub(ctx, a, b, prefix+"c"))
	call("numpat", r.PubSubNumPat(ctx))
	kit.Must(listener.Ping(ctx, "there"))
	next("ping", 1)
	kit.Must(listener.Unsubscribe(ctx, a))
	next("unsubscribed", 1)
	call("published to the pattern", r.Publish(ctx, a, "pattern"))
	next("by pattern", 1)
	kit.Must(listener.PUnsubscribe(ctx, prefix+"*"))
	next("punsubscribed", 1)
	call("published to nobody again", r.Publish(ctx, a, "x"))
	pipe := r.Pipeline()
	for n := range 500 {
		pipe.Publish(ctx, b, fmt.Sprint(n))
	}
	kit.Got(pipe.Exec(ctx))
	next("all in order", 500)
	kit.Must(listener.Close())
	// The server learns of the end in its own time.
	kit.WaitFor("no subscribers", func() bool { return kit.Got(r.PubSubNumSub(ctx, b).Result())[b] == 0 })
	shard := r.SSubscribe(ctx, a)
	listener = shard
	next("subscribed by shard", 1)
	call("published by shard", r.SPublish(ctx, a, "s"))
	next("message by shard", 1)
	kit.Must(shard.Close())
}

func (p program) pipeline(prefix string) {
	r, s := p.connect(), prefix+"s"
	const count = 2000
	pipe := r.Pipeline()
	for n := range count {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: s, Values: []string{"value", fmt.Sprint(n)}})
		pipe.Echo(ctx, n)
		pipe.XLen(ctx, s)
		pipe.Ping(ctx)
	}
	replies := kit.Got(pipe.Exec(ctx))
	step("count")(len(replies), nil)
	var ids []string
	for n := range count {
		ids = append(ids, replies[4*n].(*redis.StringCmd).Val())
		kit.Equal("echo", replies[4*n+1].(*redis.StringCmd).Val(), fmt.Sprint(n))
		kit.Equal("length", replies[4*n+2].(*redis.IntCmd).Val(), int64(n+1))
		kit.Equal("ping", replies[4*n+3].(*redis.StatusCmd).Val(), "PONG")
	}
	step("ids")(ids, nil)
	pipe.XLen(ctx, s)
	pipe.Do(ctx, "NOSUCH")
	pipe.XLen(ctx, s)
	mixed, _ := pipe.Exec(ctx)
	var failed []bool
	for _, reply := range mixed {
		failed = append(failed, reply.Err() != nil)
	}
	step("an error in the middle")(failed, nil)
	call("xrange", r.XRange(ctx, s, "-", "+"))
}

func (p program) subscribe(channels []string) {
	r := p.connect()
	var listener *redis.PubSub
	if channels[0] == "--pattern" {
		listener = r.PSubscribe(ctx, channels[1:]...)
	} else {
		listener = r.Subscribe(ctx, channels...)
	}
	go func() {
		<-kit.WhenStdinCloses()
		os.Exit(0)
	}()
	for heard := time.Now(); ; {
		received, err := listener.Receive(ctx)
		if err != nil {
			// The next call connects and subscribes anew.
			kit.Check(time.Since(heard) < kit.Timeout, "no connection: %v", err)
			time.Sleep(retryEvery)
			continue
		}
		heard = time.Now()
		switch message := received.(type) {
		case *redis.Subscription:
			kit.SayNow("subscribed", message.Channel)
		case *redis.Message:
			kit.SayNow("message", message.Channel, hex.EncodeToString([]byte(message.Payload)))
		}
	}
}

// untilServed tries until the server is there, since ours is killed now and then.
func untilServed(what string, try func() error) {
	kit.WaitFor(what, func() bool {
		err := try()
		var refused redis.Error
		if errors.As(err, &refused) && !errors.Is(err, redis.Nil) {
			kit.Fail("%s: %v", what, err)
		}
		return err == nil || errors.Is(err, redis.Nil)
	})
}

func (p program) feed(stream string) {
	r := p.connect()
	input := bufio.NewScanner(os.Stdin)
	for line := 0; input.Scan(); line++ {
		untilServed("an answer to XADD", func() error {
			id, err := r.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []string{"value", input.Text()}}).Result()
			if err == nil {
				kit.SayNow("added", line, id)
			}
			return err
		})
	}
}

func (p program) work(stream, group, consumer string) {
	r, left, start := p.connect(), kit.WhenStdinCloses(), "0"
	for {
		select {
		case <-left:
			return
		default:
		}
		var found []redis.XStream
		untilServed("an answer to XREADGROUP", func() (err error) {
			found, err = r.XReadGroup(ctx, &redis.XReadGroupArgs{
				Group: group, Consumer: consumer, Streams: []string{stream, start}, Count: 100, Block: 200 * time.Millisecond,
			}).Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				// The server may have given us entries that died on the way: they are in our history.
				start = "0"
			}
			return err
		})
		var ids []string
		for _, page := range found {
			for _, entry := range page.Messages {
				value, _ := entry.Values["value"].(string)
				kit.Say("entry", entry.ID, hex.EncodeToString([]byte(value)))
				ids = append(ids, entry.ID)
			}
		}
		kit.Flush()
		if len(ids) == 0 {
			start = ">"
			continue
		}
		untilServed("an answer to XACK", func() error {
			count, err := r.XAck(ctx, stream, group, ids...).Result()
			if err == nil {
				kit.SayNow("acked", count)
			}
			return err
		})
		if start != ">" {
			start = ids[len(ids)-1]
		}
	}
}

func main() {
	address := flag.String("address", "", "HOST:PORT")
	protocol := flag.Int("protocol", 3, "2 or 3")
	flag.Parse()
	p := program{redis.Options{
		Addr: *address, Protocol: *protocol, ReadTimeout: kit.Timeout, MaxRetries: -1,
		MinRetryBackoff: retryEvery, MaxRetryBackoff: retryEvery,
	}}
	args := flag.Args()
	switch verb := args[0]; verb {
	case "scenario":
		scenarios := map[string]func(string){
			"streams": p.streams, "groups": p.groups, "keys": p.keys, "pubsub": p.pubsub, "pipeline": p.pipeline,
		}
		scenario, known := scenarios[args[1]]
		kit.Check(known, "unknown scenario %q", args[1])
		scenario(args[2])
	case "subscribe":
		p.subscribe(args[1:])
	case "add":
		p.feed(args[1])
	case "work":
		p.work(args[1], args[2], args[3])
	default:
		kit.Fail("unknown verb %q", verb)
	}
	kit.Flush()
}
