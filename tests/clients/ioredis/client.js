// ioredis under test. Verbs and lines: tests/clients/README.md.
"use strict";

const Redis = require("ioredis");
const readline = require("node:readline");

const TIMEOUT_MS = 60_000;
const RETRY_EVERY_MS = 50;

// What differs from server to server and from moment to moment.
const VOLATILE = new Set(["idle", "inactive", "radix-tree-keys", "radix-tree-nodes", "seen-time"]);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function say(...fields) {
  process.stdout.write(fields.join("\t") + "\n");
}

// The decoded answer without what is volatile: in objects, and in lists of names and values.
function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString("latin1");
  if (Array.isArray(value)) {
    const kept = [];
    for (let at = 0; at < value.length; at += 1) {
      if (typeof value[at] === "string" && VOLATILE.has(value[at])) at += 1;
      else kept.push(plain(value[at]));
    }
    return kept;
  }
  if (value !== null && typeof value === "object") {
    const pairs = Object.entries(value).filter(([name]) => !VOLATILE.has(name));
    return Object.fromEntries(pairs.map(([name, inner]) => [name, plain(inner)]));
  }
  return value;
}

// Prints what a call brought: an answer, or the first word of an error.
async function step(name, answer) {
  let seen;
  try {
    seen = plain(await answer());
  } catch (error) {
    if (error.name !== "ReplyError") throw error;
    seen = { error: error.message.split(" ")[0] };
  }
  say("step", name, JSON.stringify(seen));
  return seen;
}

const opened = [];

function connect(args, more = {}) {
  const [host, port] = args.address.split(":");
  const mapping = args.protocol === 3 ? { replyMapping: "resp3" } : {};
  const redis = new Redis({
    host,
    port: Number(port),
    protocol: args.protocol,
    commandTimeout: TIMEOUT_MS,
    retryStrategy: () => RETRY_EVERY_MS,
    ...mapping,
    ...more,
  });
  // A connection that is lost is tried anew; a command that fails says so itself.
  redis.on("error", () => {});
  opened.push(redis);
  return redis;
}

function later(action) {
  return sleep(200).then(action);
}

// `[id, consumer, idle, deliveries]` without the idle time.
const withoutIdle = (rows) => rows.map(([id, consumer, , deliveries]) => [id, consumer, deliveries]);

async function streams(args) {
  const [r, s, t] = [connect(args), args.prefix + "s", args.prefix + "t"];
  await step("xlen of nothing", () => r.xlen(s));
  await step("xread of nothing", () => r.xread("STREAMS", s, "0"));
  await step("xrange of nothing", () => r.xrange(s, "-", "+"));
  await step("xadd nomkstream", () => r.xadd(s, "NOMKSTREAM", "*", "value", "x"));
  await step("exists after nomkstream", () => r.exists(s));
  const ids = [];
  for (let n = 0; n < 10; n += 1) {
    const value = Buffer.from([n, 255, 0, 10, 13]);
    ids.push(await r.xadd(s, "*", "key", `k${n}`, "value", value, "extra", `größe ${n}`, "empty", ""));
    await sleep(2);
  }
  await step("xlen", () => r.xlen(s));
  await step("xrange", () => r.xrangeBuffer(s, "-", "+"));
  await step("xrange count", () => r.xrangeBuffer(s, "-", "+", "COUNT", 3));
  await step("xrange between", () => r.xrangeBuffer(s, ids[2], ids[5]));
  await step("xrange exclusive", () => r.xrangeBuffer(s, "(" + ids[2], "(" + ids[5]));
  await step("xrange backwards is empty", () => r.xrange(s, ids[5], ids[2]));
  await step("xrevrange", () => r.xrevrangeBuffer(s, "+", "-"));
  await step("xrevrange count", () => r.xrevrangeBuffer(s, ids[6], ids[1], "COUNT", 4));
  await step("xrange of a bad id", () => r.xrange(s, "abc", "+"));
  await sleep(2); // within one millisecond Redis gives entries of two streams the same id
  for (let n = 0; n < 3; n += 1) await r.xadd(t, "*", "value", `t${n}`);
  await step("xread two streams", () => r.xread("STREAMS", s, t, ids[7], "0"));
  await step("xread count", () => r.xread("COUNT", 2, "STREAMS", s, t, "0", "0"));
  await step("xread at the end", () => r.xread("STREAMS", s, t, "$", "$"));
  await step("xread block in vain", () => r.xread("BLOCK", 50, "STREAMS", s, "$"));
  const writer = connect(args);
  let written = later(() => writer.xadd(t, "*", "key", "late", "value", "woken"));
  await step("xread block", () => r.xread("BLOCK", 10_000, "STREAMS", s, t, "$", "$"));
  await written;
  const born = args.prefix + "born";
  written = later(() => writer.xadd(born, "*", "value", "first"));
  await step("xread block on a stream to come", () => r.xread("BLOCK", 10_000, "STREAMS", born, "$"));
  await written;
  await step("xinfo stream", () => r.xinfo("STREAM", s));
  await step("xtrim maxlen", () => r.xtrim(s, "MAXLEN", "=", 6));
  await step("xlen after xtrim", () => r.xlen(s));
  await step("xrange after xtrim", () => r.xrangeBuffer(s, "-", "+"));
  await step("xtrim minid", () => r.xtrim(s, "MINID", "=", ids[7]));
  await step("xrange after minid", () => r.xrangeBuffer(s, "-", "+"));
  await sleep(2); // as above
  await step("xadd maxlen", () => r.xadd(s, "MAXLEN", 2, "*", "value", "a"));
  await step("xlen after xadd maxlen", () => r.xlen(s));
  const last = await r.xadd(s, "*", "value", "b");
  await step("xadd minid", () => r.xadd(s, "MINID", last, "*", "value", "c"));
  await step("xrange after xadd minid", () => r.xrange(s, "-", "+"));
  await step("xadd about maxlen", () => r.xadd(s, "MAXLEN", "~", 1000, "*", "value", "d"));
  await step("xtrim about maxlen", () => r.xtrim(s, "MAXLEN", "~", 1000));
  await step("xlen in the end", () => r.xlen(s));
}

async function groups(args) {
  const [r, s] = [connect(args), args.prefix + "s"];
  await step("create without a stream", () => r.xgroup("CREATE", s, "g", "$"));
  await step("read without a group", () => r.xreadgroup("GROUP", "g", "a", "STREAMS", s, ">"));
  await step("create mkstream", () => r.xgroup("CREATE", s, "g", "$", "MKSTREAM"));
  await step("create twice", () => r.xgroup("CREATE", s, "g", "$", "MKSTREAM"));
  await step("read an empty stream", () => r.xreadgroup("GROUP", "g", "a", "STREAMS", s, ">"));
  const ids = [];
  for (let n = 0; n < 12; n += 1) ids.push(await r.xadd(s, "*", "key", `k${n}`, "value", `v${n}`));
  await step("create consumer", () => r.xgroup("CREATECONSUMER", s, "g", "b"));
  await step("create consumer twice", () => r.xgroup("CREATECONSUMER", s, "g", "b"));
  await step("a reads", () => r.xreadgroup("GROUP", "g", "a", "COUNT", 4, "STREAMS", s, ">"));
  await step("b reads", () => r.xreadgroup("GROUP", "g", "b", "COUNT", 3, "STREAMS", s, ">"));
  await step("history of a", () => r.xreadgroup("GROUP", "g", "a", "STREAMS", s, "0"));
  await step("history of a, second", () => r.xreadgroup("GROUP", "g", "a", "COUNT", 1, "STREAMS", s, ids[1]));
  await step("pending", () => r.xpending(s, "g"));
  await step("pending range", async () => withoutIdle(await r.xpending(s, "g", "-", "+", 10)));
  await step("pending of b", async () => withoutIdle(await r.xpending(s, "g", "-", "+", 2, "b")));
  await step("pending for an hour", () => r.xpending(s, "g", "IDLE", 3_600_000, "-", "+", 10));
  await step("ack", () => r.xack(s, "g", ids[0], ids[1]));
  await step("ack again", () => r.xack(s, "g", ids[0], ids[5], "1-1"));
  await step("info groups", () => r.xinfo("GROUPS", s));
  await step("info consumers", () => r.xinfo("CONSUMERS", s, "g"));
  await step("noack", () => r.xreadgroup("GROUP", "g", "a", "COUNT", 2, "NOACK", "STREAMS", s, ">"));
  await step("pending after noack", () => r.xpending(s, "g"));
  await step("claim", () => r.xclaim(s, "g", "b", 0, ids[2], ids[3]));
  await step("claim too young", () => r.xclaim(s, "g", "a", 3_600_000, ids[2]));
  await step("claim just ids", () => r.xclaim(s, "g", "a", 0, ids[3], "JUSTID"));
  await step("claim with a count", () => r.xclaim(s, "g", "a", 0, ids[2], "IDLE", 5000, "RETRYCOUNT", 7));
  await step("claim with force", () => r.xclaim(s, "g", "a", 0, ids[10], "FORCE", "JUSTID"));
  await step("pending after claims", async () => withoutIdle(await r.xpending(s, "g", "-", "+", 20)));
  await step("autoclaim", () => r.xautoclaim(s, "g", "c", 0, "0-0", "COUNT", 2));
  await step("autoclaim just ids", () => r.xautoclaim(s, "g", "d", 0, "0-0", "JUSTID"));
  await r.xtrim(s, "MAXLEN", 9);
  await step("autoclaim what is trimmed", () => r.xautoclaim(s, "g", "a", 0, "0-0", "COUNT", 3));
  await step("del consumer", () => r.xgroup("DELCONSUMER", s, "g", "a"));
  const writer = connect(args);
  await r.xreadgroup("GROUP", "g", "e", "STREAMS", s, ">");
  const written = later(() => writer.xadd(s, "*", "value", "woken"));
  await step("read block", () => r.xreadgroup("GROUP", "g", "e", "BLOCK", 10_000, "STREAMS", s, ">"));
  await written;
  await step("read block in vain", () => r.xreadgroup("GROUP", "g", "e", "BLOCK", 50, "STREAMS", s, ">"));
  await step("set id", () => r.xgroup("SETID", s, "g", ids[9]));
  await step("read after set id", () => r.xreadgroup("GROUP", "g", "f", "STREAMS", s, ">"));
  await step("destroy", () => r.xgroup("DESTROY", s, "g"));
  await step("destroy twice", () => r.xgroup("DESTROY", s, "g"));
  await step("read of the destroyed", () => r.xreadgroup("GROUP", "g", "a", "STREAMS", s, ">"));
}

async function keys(args) {
  const r = connect(args);
  const names = [0, 1, 2, 3, 4].map((n) => `${args.prefix}${n}`);
  for (const name of names) await r.xadd(name, "*", "value", "x");
  const missing = args.prefix + "missing";
  await step("type", async () => [await r.type(names[0]), await r.type(missing)]);
  await step("exists", () => r.exists(names[0], names[1], missing, names[0]));
  await step("keys", async () => (await r.keys(args.prefix + "*")).sort());
  await step("keys by class", async () => (await r.keys(args.prefix + "[0-2]")).sort());
  const scanned = async (options) => {
    const found = new Set();
    for await (const page of r.scanStream(options)) page.forEach((name) => found.add(name));
    return [...found].sort();
  };
  await step("scan", () => scanned({ match: args.prefix + "*", count: 2 }));
  await step("scan streams", () => scanned({ match: args.prefix + "*", type: "stream" }));
  await step("scan strings", () => scanned({ match: args.prefix + "*", type: "string" }));
  await step("del", () => r.del(names[0], names[1], missing));
  await step("exists after del", () => r.exists(...names));
  await step("xlen after del", () => r.xlen(names[0]));
  await step("xinfo after del", () => r.xinfo("STREAM", names[0]));
  await r.xadd(names[0], "*", "value", "anew");
  await step("after birth anew", () => r.xrange(names[0], "-", "+"));
  await step("echo", () => r.echo("größe"));
  await step("ping", () => r.ping());
  await step("client name", async () => [await r.client("SETNAME", "kit"), await r.client("GETNAME")]);
  await step("wrong number of arguments", () => r.call("XLEN"));
  await step("no such command", () => r.call("NOSUCH", "x"));
}

async function pubsub(args) {
  const [r, p] = [connect(args), connect(args)];
  const [a, b] = [args.prefix + "a", args.prefix + "b"];
  const arrived = [];
  p.on("messageBuffer", (channel, message) => arrived.push([channel, message].map(plain)));
  p.on("pmessageBuffer", (pattern, channel, message) => arrived.push([pattern, channel, message].map(plain)));
  const messages = async (count) => {
    const deadline = Date.now() + TIMEOUT_MS;
    while (arrived.length < count) {
      if (Date.now() > deadline) throw new Error(`${arrived.length} of ${count} messages came`);
      await sleep(5);
    }
    return arrived.splice(0, count);
  };
  await step("publish to nobody", () => r.publish(a, "lost"));
  await step("subscribed", () => p.subscribe(a, b));
  const binary = Buffer.from([0, 255, 13, 10]);
  await step("published", async () => [await r.publish(a, "1"), await r.publish(b, binary), await r.publish(a, "")]);
  // In order within a channel; channels are logs of their own.
  await step("messages", async () => (await messages(3)).sort(([one], [two]) => one.localeCompare(two)));
  await step("pattern", () => p.psubscribe(args.prefix + "*"));
  await step("published to both", () => r.publish(a, "both"));
  await step("both", async () => (await messages(2)).sort());
  await step("channels", async () => (await r.pubsub("CHANNELS", args.prefix + "*")).sort());
  await step("numsub", () => r.pubsub("NUMSUB", a, b, args.prefix + "c"));
  await step("numpat", () => r.pubsub("NUMPAT"));
  await step("ping", () => p.ping());
  await step("unsubscribed", () => p.unsubscribe(a));
  await step("published to the pattern", () => r.publish(a, "pattern"));
  await step("by pattern", () => messages(1));
  await step("punsubscribed", () => p.punsubscribe(args.prefix + "*"));
  await step("published to nobody again", () => r.publish(a, "x"));
  const pipeline = r.pipeline();
  for (let n = 0; n < 500; n += 1) pipeline.publish(b, `${n}`);
  await pipeline.exec();
  await step("all in order", async () => (await messages(500)).map(([, message]) => message));
  await step("unsubscribed all", () => p.unsubscribe());
  await step("echo after all", () => p.echo("free"));
}

async function pipeline(args) {
  const [r, s] = [connect(args), args.prefix + "s"];
  const batch = r.pipeline();
  for (let n = 0; n < 2000; n += 1) batch.xadd(s, "*", "value", `${n}`).echo(`${n}`).xlen(s).ping();
  const replies = (await batch.exec()).map(([error, reply]) => error ?? reply);
  const every = (first) => replies.filter((_, at) => at % 4 === first);
  await step("count", () => replies.length);
  await step("ids", () => every(0));
  await step("echoes in order", () => every(1).every((reply, n) => reply === `${n}`));
  await step("lengths in order", () => every(2).every((reply, n) => reply === n + 1));
  await step("pings", () => every(3).every((reply) => reply === "PONG"));
  const mixed = await r.pipeline().xlen(s).call("NOSUCH").xlen(s).exec();
  await step("an error in the middle", () => mixed.map(([error]) => error !== null));
  await step("xrange", () => r.xrange(s, "-", "+"));
  // Without an explicit pipeline: all written at once, answered in order.
  const echoes = await Promise.all(Array.from({ length: 3000 }, (_, n) => r.echo(`${n}`)));
  await step("many in flight", () => echoes.every((reply, n) => reply === `${n}`));
}

function whenStdinCloses() {
  return new Promise((resolve) => process.stdin.on("end", resolve).resume());
}

async function subscribe(args) {
  const p = connect(args, { autoResubscribe: true });
  const pattern = args.rest[0] === "--pattern";
  const channels = args.rest.slice(pattern ? 1 : 0);
  p.on("messageBuffer", (channel, message) => say("message", channel, message.toString("hex")));
  p.on("pmessageBuffer", (_, channel, message) => say("message", channel, message.toString("hex")));
  await (pattern ? p.psubscribe(...channels) : p.subscribe(...channels));
  channels.forEach((channel) => say("subscribed", channel));
  await whenStdinCloses();
}

// A connection that outlives restarts of its server.
const reliable = (args) => connect(args, { maxRetriesPerRequest: null });

async function add(args) {
  const r = reliable(args);
  let line = 0;
  for await (const text of readline.createInterface({ input: process.stdin })) {
    say("added", line, await r.xadd(args.rest[0], "*", "value", text));
    line += 1;
  }
}

async function work(args) {
  const [stream, group, consumer] = args.rest;
  const r = reliable(args);
  let left = false;
  whenStdinCloses().then(() => (left = true));
  let start = "0";
  while (!left) {
    const answer = await r.xreadgroupBuffer("GROUP", group, consumer, "COUNT", 100, "BLOCK", 200, "STREAMS",
      stream, start);
    // A map under RESP3, a list of pairs under RESP2.
    const pairs = Array.isArray(answer) ? answer : Object.entries(answer ?? {});
    const entries = pairs.flatMap(([, found]) => found);
    if (entries.length === 0) {
      start = ">";
      continue;
    }
    for (const [id, fields] of entries) {
      const at = fields.findIndex((name, index) => index % 2 === 0 && name.toString() === "value");
      say("entry", id, at < 0 ? "-" : fields[at + 1].toString("hex"));
    }
    const ids = entries.map(([id]) => id.toString());
    say("acked", await r.xack(stream, group, ...ids));
    if (start !== ">") start = ids.at(-1);
  }
}

const VERBS = { streams, groups, keys, pubsub, pipeline, subscribe, add, work };

async function main() {
  const [flag, address, protocolFlag, protocol, verb, ...rest] = process.argv.slice(2);
  if (flag !== "--address" || protocolFlag !== "--protocol") throw new Error("usage: tests/clients/README.md");
  const args = { address, protocol: Number(protocol), rest };
  if (verb === "scenario") await VERBS[rest[0]]({ ...args, prefix: rest[1] });
  else await VERBS[verb](args);
  opened.forEach((redis) => redis.disconnect());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
