// kafkajs under test. Verbs and lines: tests/clients/README.md.
"use strict";

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require("kafkajs");
const snappy = require("kafkajs-snappy");
const lz4 = require("lz4-napi");
const zstd = require("@bokuweb/zstd-wasm");
const readline = require("node:readline");

const TIMEOUT_MS = 60_000;

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

// kafkajs knows gzip by itself and leaves the other codecs to plug-ins.
async function installCodecs() {
  await zstd.init();
  CompressionCodecs[CompressionTypes.Snappy] = snappy;
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: (encoder) => lz4.compressFrame(encoder.buffer),
    decompress: (data) => lz4.decompressFrame(data),
  });
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async (data) => Buffer.from(zstd.decompress(data)),
  });
}

const output = [];

function say(...fields) {
  output.push(fields.join("\t"));
  if (output.length >= 1000) flush();
}

function flush() {
  if (output.length > 0) process.stdout.write(output.splice(0).join("\n") + "\n");
}

function sayNow(...fields) {
  say(...fields);
  flush();
}

function unhex(field) {
  return field === "-" ? null : Buffer.from(field, "hex");
}

function tohex(data) {
  return data === null || data === undefined ? "-" : Buffer.from(data).toString("hex");
}

function sayRecord(topic, partition, message) {
  const headers = Object.entries(message.headers ?? {}).map(([name, value]) => `${name}:${tohex(value)}`);
  say("record", topic, partition, message.offset, message.timestamp, tohex(message.key), tohex(message.value),
    headers.join(","));
}

function check(condition, message) {
  if (!condition) throw new Error(`check failed: ${message}`);
}

function equal(seen, expected, what) {
  const [left, right] = [JSON.stringify(seen), JSON.stringify(expected)];
  check(left === right, `${what}: expected ${right}, found ${left}`);
}

async function waitFor(condition, what) {
  const deadline = Date.now() + TIMEOUT_MS;
  while (!(await condition())) {
    check(Date.now() < deadline, `waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function client(bootstrap) {
  return new Kafka({
    clientId: "kafkajs",
    brokers: [bootstrap],
    logLevel: logLevel.ERROR,
    retry: { maxRetryTime: 1000, retries: 200 },
  });
}

async function create(kafka, [topics, partitions, ...configs]) {
  const admin = kafka.admin();
  await admin.connect();
  const configEntries = configs.map((pair) => ({ name: pair.split("=")[0], value: pair.split("=")[1] }));
  const created = await admin.createTopics({
    topics: topics.split(",").map((topic) => ({
      topic, numPartitions: Number(partitions), replicationFactor: 1, configEntries,
    })),
  });
  check(created, `one of ${topics} was there already`);
  await admin.disconnect();
}

async function produce(kafka, args) {
  const idempotent = args[0] === "--idempotent";
  const targets = args.filter((arg) => !arg.startsWith("--")).map((target) => target.split(":"));
  const producers = [];
  for (const [topic, codec] of targets) {
    const producer = kafka.producer({ idempotent, maxInFlightRequests: 1, allowAutoTopicCreation: false });
    await producer.connect();
    producers.push({ topic, codec, producer });
  }

  async function send(first, messages) {
    for (const { topic, codec, producer } of producers) {
      try {
        // The answer has one base offset for each partition, but not which message went where.
        await producer.send({ topic, messages, acks: -1, compression: CODECS[codec] });
        messages.forEach((_, i) => say("ack", topic, first + i, -1, -1));
      } catch (error) {
        messages.forEach((_, i) => say("failed", topic, first + i, error));
      }
      flush();
    }
  }

  let line = 0;
  let messages = [];
  for await (const text of readline.createInterface({ input: process.stdin })) {
    const [timestamp, key, value, headers] = text.split("\t");
    const pairs = headers === "" ? [] : headers.split(",").map((header) => header.split(":"));
    messages.push({
      timestamp,
      key: unhex(key),
      value: unhex(value),
      headers: Object.fromEntries(pairs.map(([name, data]) => [name, unhex(data)])),
    });
    line += 1;
    if (messages.length === 500) await send(line - messages.length, messages.splice(0));
  }
  if (messages.length > 0) await send(line - messages.length, messages);
  for (const { producer } of producers) await producer.disconnect();
}

// kafkajs has no consumer without a group, so each call reads in a group of its own and commits nothing.
async function consume(kafka, topics) {
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map();
  for (const topic of topics) {
    for (const { partition, low, high } of await admin.fetchTopicOffsets(topic)) {
      if (BigInt(high) > BigInt(low)) ends.set(`${topic}/${partition}`, BigInt(high));
    }
  }
  await admin.disconnect();

  const consumer = kafka.consumer({ groupId: `consume-${process.pid}-${Date.now()}` });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    if (ends.size === 0) resolve();
    consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch }) => {
        for (const message of batch.messages) {
          const place = `${batch.topic}/${batch.partition}`;
          if (!ends.has(place)) continue;
          sayRecord(batch.topic, batch.partition, message);
          if (BigInt(message.offset) + 1n >= ends.get(place)) ends.delete(place);
        }
        if (ends.size === 0) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
}

async function transact(kafka, [transactionalId, groupId, input, output, wanted]) {
  const producer = kafka.producer({ idempotent: true, transactionalId, maxInFlightRequests: 1 });
  await producer.connect();
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 1000 });
  await consumer.connect();
  await consumer.subscribe({ topics: [input], fromBeginning: true });
  let [committed, attempt] = [0, 0];

  // Whether the transaction was committed.
  async function move(partition, messages) {
    attempt += 1;
    const transaction = await producer.transaction();
    const moved = messages.map(({ key, value }) => ({ key, value }));
    await transaction.send({ topic: output, messages: moved });
    const offset = String(BigInt(messages.at(-1).offset) + 1n);
    await transaction.sendOffsets({
      consumerGroupId: groupId, topics: [{ topic: input, partitions: [{ partition, offset }] }],
    });
    if (attempt % 3 === 0) {
      await transaction.abort();
      sayNow("aborted", messages.length);
      return false;
    }
    await transaction.commit();
    committed += messages.length;
    sayNow("committed", messages.length);
    return true;
  }

  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error);
    });
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        for (let first = 0; first < batch.messages.length; first += 50) {
          const messages = batch.messages.slice(first, first + 50);
          while (!(await move(batch.partition, messages)));
          resolveOffset(messages.at(-1).offset);
          await heartbeat();
        }
        if (committed >= Number(wanted)) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  await producer.disconnect();
}

async function member(kafka, args) {
  let remaining = args[0] === "--count" ? Number(args[1]) : Infinity;
  const [groupId, topic] = args.slice(-2);
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 1000 });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    sayNow("assigned", (payload.memberAssignment[topic] ?? []).sort((a, b) => a - b).join(","));
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error);
    });
    process.stdin.on("end", resolve).resume();
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
        for (let at = 0; at < batch.messages.length && remaining > 0 && isRunning() && !isStale(); ) {
          const part = batch.messages.slice(at, at + Math.min(100, remaining));
          at += part.length;
          remaining -= part.length;
          for (const message of part) sayRecord(topic, batch.partition, message);
          const last = part[part.length - 1].offset;
          resolveOffset(last);
          const end = String(BigInt(last) + 1n);
          try {
            await consumer.commitOffsets([{ topic, partition: batch.partition, offset: end }]);
            sayNow("committed", `${batch.partition}:${end}`);
          } catch (error) {
            // A rebalance took the partitions away; their next owner reads the batch again.
            sayNow("commit-failed", error);
            throw error;
          }
          await heartbeat();
        }
        if (remaining === 0) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
}

async function admin(kafka, [topic]) {
  const group = `${topic}-group`;
  const client = kafka.admin();
  await client.connect();
  const step = (name) => sayNow("step", name);

  const cluster = await client.describeCluster();
  check(cluster.clusterId && cluster.brokers.length > 0, `cluster has no id or brokers: ${JSON.stringify(cluster)}`);
  check(cluster.brokers.some(({ nodeId }) => nodeId === cluster.controller), "controller is not a broker");
  step("describe-cluster");

  const configEntries = [{ name: "retention.ms", value: "86400000" }];
  const creation = { topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries }] };
  equal(await client.createTopics(creation), true, "first creation");
  equal(await client.createTopics(creation), false, "second creation");
  step("create-topic");

  const partitions = async () => {
    const { topics } = await client.fetchTopicMetadata({ topics: [topic] });
    return topics[0].partitions.map(({ partitionId }) => partitionId).sort();
  };
  // Kafka answers a creation before all of it knows the topic.
  await waitFor(() => partitions().then(() => true, (error) => {
    equal(error.type, "UNKNOWN_TOPIC_OR_PARTITION", "describing a young topic");
    return false;
  }), "the topic to be known");
  equal(await partitions(), [0, 1, 2], "partitions");
  step("describe-topic");

  await client.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
  await waitFor(async () => (await partitions()).length === 5, "5 partitions");
  step("create-partitions");

  const retention = async () => {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["retention.ms"] }];
    const { resources: answers } = await client.describeConfigs({ includeSynonyms: false, resources });
    return answers[0].configEntries[0].configValue;
  };
  equal(await retention(), "86400000", "retention.ms");
  const change = [{ name: "retention.ms", value: "7200000" }];
  await client.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: change }] });
  await waitFor(async () => (await retention()) === "7200000", "retention.ms=7200000");
  step("alter-configs");

  const now = Date.now();
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  for (let from = 0; from < 100; from += 50) {
    const messages = Array.from({ length: 50 }, (_, i) => ({
      partition: 0,
      value: `v${from + i}`,
      timestamp: String(now - 100_000 + (from + i) * 1000),
    }));
    const sent = await producer.send({ topic, messages });
    equal(sent[0].baseOffset, String(from), "offset of the idempotent producer");
  }
  await producer.disconnect();
  step("idempotent-produce");

  const offsets = async () => (await client.fetchTopicOffsets(topic)).find(({ partition }) => partition === 0);
  equal([(await offsets()).low, (await offsets()).high], ["0", "100"], "earliest and latest");
  const found = await client.fetchTopicOffsetsByTimestamp(topic, now - 50_500);
  equal(found.find(({ partition }) => partition === 0).offset, "50", "offset by timestamp");
  step("list-offsets");

  await client.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "10" }] });
  equal((await offsets()).low, "10", "earliest after delete records");
  step("delete-records");

  const consumer = kafka.consumer({ groupId: group });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const seen = [];
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => seen.push(...batch.messages.map(({ offset }) => Number(offset))),
  });
  await waitFor(() => seen.length >= 90, "90 records after delete records");
  equal([seen.length, seen[0], seen[89]], [90, 10, 99], "records after delete records");
  await consumer.commitOffsets([{ topic, partition: 0, offset: "100" }]);
  const described = async () => (await client.describeGroups([group])).groups[0];
  equal([(await described()).state, (await described()).members.length], ["Stable", 1], "group while consumed");
  step("describe-group");
  const listed = async () => (await client.listGroups()).groups.some(({ groupId }) => groupId === group);
  check(await listed(), `list groups leaves out ${group}`);
  step("list-groups");
  await consumer.disconnect();

  const committed = async () => {
    const [{ partitions }] = await client.fetchOffsets({ groupId: group, topics: [topic] });
    return partitions.find(({ partition }) => partition === 0).offset;
  };
  equal(await committed(), "100", "committed offset");
  await waitFor(async () => (await described()).state === "Empty", "an empty group");
  await client.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: "42" }] });
  equal(await committed(), "42", "altered offset");
  step("group-offsets");

  await waitFor(async () => (await described()).state === "Empty", "an empty group again");
  await client.deleteGroups([group]);
  check(!(await listed()), "the group is still listed");
  step("delete-group");

  await client.deleteTopics({ topics: [topic] });
  await waitFor(async () => !(await client.listTopics()).includes(topic), "the topic to be gone");
  step("delete-topic");
  await client.disconnect();
}

async function main() {
  const [, , flag, bootstrap, verb, ...args] = process.argv;
  check(flag === "--bootstrap", "usage: client.js --bootstrap HOST:PORT VERB ...");
  await installCodecs();
  await { create, produce, consume, transact, member, admin }[verb](client(bootstrap), args);
  flush();
}

main()
  .catch((error) => {
    flush();
    console.error(error);
    process.exitCode = 1;
  })
  // An open standard input, or a connection of a verb that failed, would keep the process alive. The last write's
  // callback comes when all output before it has left; exiting earlier cuts it off.
  .finally(() => process.stdout.write("", () => process.exit()));
