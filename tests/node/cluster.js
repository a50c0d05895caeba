// Clients of Node.js in cluster mode: `cluster.js ioredis|node-redis PORT...`.
//
// One checks typical uses, says `ready`, and then counts in all slots, through pipelines and without, until it gets SIGTERM. At the end
// no count may be lost, none may be counted twice, and it says `well`.
"use strict";

const assert = require("assert");

const COUNTERS = 300;
const PATIENCE_MS = 20000;
let isOver = false;
process.on("SIGTERM", () => (isOver = true));

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const numbers = (count) => Array.from({ length: count }, (_, number) => number);

/** Waits until something is so. */
async function until(what, isSo) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert(Date.now() < end, `not so: ${what}`);
    await sleep(20);
  }
}

/** ioredis behind the few operations that the checks use. */
class Ioredis {
  constructor(ports) {
    const { Cluster } = require("ioredis");
    const nodes = ports.map((port) => ({ host: "127.0.0.1", port }));
    this.cluster = new Cluster(nodes);
    this.grouped = new Cluster(nodes, { enableAutoPipelining: true });
    this.reader = new Cluster(nodes, { scaleReads: "slave" });
    this.subscriber = new Cluster(nodes, { shardedSubscribers: true });
    this.listeners = new Map();
    this.subscriber.on("smessage", (channel, text) => this.listeners.get(channel)(text));
  }
  async connect() {
    // It connects by itself, with the first command.
  }
  set(key, value) {
    return this.cluster.set(key, value);
  }
  get(key) {
    return this.cluster.get(key);
  }
  incr(key) {
    return this.cluster.incr(key);
  }
  mget(keys) {
    return this.cluster.mget(keys);
  }
  mset(pairs) {
    return this.cluster.mset(pairs);
  }
  /** Keys of two slots in one command. */
  async mgetOfTwoSlots() {
    await assert.rejects(this.cluster.mget(["a", "b"]), /CROSSSLOT/);
  }
  readReplica(key) {
    return this.reader.get(key);
  }
  /** Increments counters at once; the client groups them by node. In a group it follows no redirect, and leaves that to its user. */
  incrGrouped(keys) {
    return Promise.all(keys.map((key) => this.grouped.incr(key).catch((error) => this.again(error, "incr", key))));
  }
  /** Two commands of one slot in a pipeline. */
  async pipeline(key) {
    const replies = await this.cluster.pipeline().incr(key).get(key).exec();
    const commands = ["incr", "get"];
    const values = [];
    for (const [at, [error, reply]] of replies.entries()) {
      values.push(error ? await this.again(error, commands[at], key) : reply);
    }
    return values;
  }
  /** Sends a command by itself that was redirected in a group, and so did not run. */
  again(error, command, key) {
    if (!/^(MOVED|ASK|TRYAGAIN) /.test(error.message)) throw error;
    return this.cluster[command](key);
  }
  async transaction(key) {
    const replies = await this.cluster.multi().incr(key).get(key).exec();
    return replies.map(([, reply]) => reply);
  }
  async listen(channel, receive) {
    this.listeners.set(channel, receive);
    await this.subscriber.ssubscribe(channel);
  }
  spublish(channel, text) {
    return this.cluster.spublish(channel, text);
  }
  close() {
    [this.cluster, this.grouped, this.reader, this.subscriber].forEach((cluster) => cluster.disconnect());
  }
}

/** node-redis behind the same operations. */
class NodeRedis {
  constructor(ports) {
    const { createCluster } = require("redis");
    const rootNodes = ports.map((port) => ({ url: `redis://127.0.0.1:${port}` }));
    this.cluster = createCluster({ rootNodes });
    this.reader = createCluster({ rootNodes, useReplicas: true });
    for (const cluster of [this.cluster, this.reader]) cluster.on("error", (error) => console.log("error", error));
  }
  async connect() {
    await Promise.all([this.cluster.connect(), this.reader.connect()]);
  }
  set(key, value) {
    return this.cluster.set(key, value);
  }
  get(key) {
    return this.cluster.get(key);
  }
  incr(key) {
    return this.cluster.incr(key);
  }
  mget(keys) {
    return this.cluster.mGet(keys);
  }
  mset(pairs) {
    return this.cluster.mSet(pairs);
  }
  /** This library sends a command to each of the slots. */
  async mgetOfTwoSlots() {
    assert.deepStrictEqual(await this.cluster.mGet(["a", "b"]), [null, null]);
  }
  readReplica(key) {
    return this.reader.get(key);
  }
  /** What is sent in one turn of the event loop goes to each node in one piece. */
  incrGrouped(keys) {
    return Promise.all(keys.map((key) => this.cluster.incr(key)));
  }
  pipeline(key) {
    return this.cluster.multi().incr(key).get(key).execAsPipeline();
  }
  transaction(key) {
    return this.cluster.multi().incr(key).get(key).exec();
  }
  async listen(channel, receive) {
    await this.cluster.sSubscribe(channel, receive);
  }
  spublish(channel, text) {
    return this.cluster.sPublish(channel, text);
  }
  close() {
    this.cluster.destroy();
    this.reader.destroy();
  }
}

/** Commands for one slot, for several, and reads that replicas answer. */
async function basics(client) {
  const keys = numbers(COUNTERS).map((number) => `key:${number}`);
  await Promise.all(keys.map((key, number) => client.set(key, String(number))));
  assert.deepStrictEqual(await Promise.all(keys.map((key) => client.get(key))), numbers(COUNTERS).map(String));
  await client.mset({ "{tag}:a": "1", "{tag}:b": "2" });
  assert.deepStrictEqual(await client.mget(["{tag}:a", "{tag}:b"]), ["1", "2"]);
  assert.deepStrictEqual((await client.pipeline("piped")).map(String), ["1", "1"]);
  assert.deepStrictEqual((await client.transaction("piped")).map(String), ["2", "2"]);
  await client.mgetOfTwoSlots();
  const isWhole = async () => {
    const values = await Promise.all(keys.map((key) => client.readReplica(key)));
    return values.every((value, number) => value === String(number));
  };
  await until("replicas have what was written", isWhole);
}

/** Messages of shard channels arrive, each at the node of its slot. */
async function shardedPubsub(client) {
  const received = new Set();
  const channels = numbers(12).map((number) => `channel:${number}`);
  for (const channel of channels) {
    await client.listen(channel, (text) => {
      assert.strictEqual(text, `to ${channel}`);
      received.add(channel);
    });
  }
  for (const channel of channels) assert.strictEqual(await client.spublish(channel, `to ${channel}`), 1);
  await until("all messages have come", () => received.size === channels.length);
}

/** Counts until SIGTERM; nothing may be lost or doubled meanwhile. */
async function count(client) {
  const counts = new Array(COUNTERS).fill(0);
  const key = (number) => `count:${number}`;
  for (let step = 0; !isOver; step++) {
    const group = numbers(20).map((offset) => (step * 20 + offset) % COUNTERS);
    group.forEach((number) => counts[number]++);
    const replies = await client.incrGrouped(group.map(key));
    assert.deepStrictEqual(replies, group.map((number) => counts[number]));
    const number = step % COUNTERS;
    const wanted = ++counts[number];
    assert.deepStrictEqual((await client.pipeline(key(number))).map(Number), [wanted, wanted]);
    console.log("step", step + 1);
    await sleep(1);
  }
  for (const number of numbers(COUNTERS)) {
    assert.strictEqual(Number(await client.get(key(number))), counts[number], key(number));
  }
}

async function main() {
  const [library, ...ports] = process.argv.slice(2);
  const client = library === "ioredis" ? new Ioredis(ports.map(Number)) : new NodeRedis(ports.map(Number));
  await client.connect();
  await basics(client);
  await shardedPubsub(client);
  console.log("ready");
  await count(client);
  client.close();
  console.log("well");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
