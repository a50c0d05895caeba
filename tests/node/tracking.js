// The client-side cache of node-redis: `tracking.js PORT`.
"use strict";

const assert = require("assert");
const { createClient, BasicClientSideCache } = require("redis");

const PATIENCE_MS = 10000;
const url = `redis://127.0.0.1:${process.argv[2]}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something is so. */
async function until(what, isSo) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert(Date.now() < end, `not so: ${what}`);
    await sleep(2);
  }
}

/** What was read comes from the cache until it is changed, in any way. */
async function seeChanges(cached, plain, cache) {
  await plain.set("k", "1");
  assert.equal(await cached.get("k"), "1");
  const before = cache.stats().hitCount;
  for (let i = 0; i < 10; i++) assert.equal(await cached.get("k"), "1");
  assert.equal(cache.stats().hitCount, before + 10);
  await plain.set("k", "2");
  await until("a change is seen", async () => (await cached.get("k")) === "2");
  await plain.hSet("h", { f: "1", g: "2" });
  assert.deepEqual({ ...(await cached.hGetAll("h")) }, { f: "1", g: "2" });
  await plain.hDel("h", "g");
  await until("a field is gone", async () => Object.keys(await cached.hGetAll("h")).length === 1);
  await plain.set("short", "1", { PX: 50 });
  assert.equal(await cached.get("short"), "1");
  await until("a key has expired", async () => (await cached.get("short")) === null);
  await plain.flushAll();
  await until("nothing is left", async () => (await cached.get("k")) === null);
}

/** Many keys at once, over all shards, while they change. */
async function readMany(cached, plain) {
  const names = Array.from({ length: 100 }, (_, number) => `key:${number}`);
  const numbers = new Array(names.length).fill(0);
  for (let round = 1; round <= 20; round++) {
    const reads = names.map((name) => cached.get(name));
    const writes = names.map(async (name, index) => {
      if ((index + round) % 3) return;
      await plain.set(name, String(round));
      numbers[index] = round;
    });
    await Promise.all([...reads, ...writes]);
    // Its reply comes behind the messages.
    await cached.ping();
    const values = await Promise.all(names.map((name) => cached.get(name)));
    values.forEach((value, index) => assert(Number(value ?? 0) >= numbers[index], `${names[index]} is old`));
  }
}

async function main() {
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 1000, evictPolicy: "LRU", recordStats: true });
  const cached = await createClient({ url, RESP: 3, clientSideCache: cache }).connect();
  const plain = await createClient({ url }).connect();
  await plain.flushAll();
  await seeChanges(cached, plain, cache);
  await readMany(cached, plain);
  cached.destroy();
  plain.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
