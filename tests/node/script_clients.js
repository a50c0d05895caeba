// Libraries of Node.js that work by scripts: `script_clients.js queues|locks|limits PORT`.
"use strict";

const assert = require("node:assert");

const [kind, port] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits until something holds, for a minute at most.
async function until(what, isSo) {
  for (let tries = 0; tries < 1200; tries++) {
    if (await isSo()) return;
    await sleep(50);
  }
  throw new Error(`never: ${what}`);
}

// BullMQ: jobs are added, processed by several workers, retried, delayed, repeated, ordered by priority, limited, paused, and made of
// others.
async function queues() {
  const { Queue, Worker, QueueEvents, FlowProducer } = require("bullmq");
  const queue = new Queue("orders", { connection });
  const events = new QueueEvents("orders", { connection });
  await events.waitUntilReady();
  const done = [];
  const work = async (job) => {
    if (job.name === "fails once" && job.attemptsMade === 0) throw new Error("the first time");
    if (job.name === "fails") throw new Error("always");
    done.push(job.name);
    return job.data.value * 2;
  };
  const workers = [1, 2, 3].map(() => new Worker("orders", work, { connection, concurrency: 4 }));

  const jobs = await queue.addBulk(Array.from({ length: 100 }, (_, value) => ({ name: "plain", data: { value } })));
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
  assert.deepStrictEqual(results, jobs.map((_, value) => value * 2));

  const retried = await queue.add("fails once", { value: 21 }, { attempts: 2, backoff: 50 });
  assert.strictEqual(await retried.waitUntilFinished(events), 42);
  const failed = await queue.add("fails", { value: 1 });
  await assert.rejects(failed.waitUntilFinished(events), /always/);
  assert.strictEqual(await queue.getJobCountByTypes("failed"), 1);

  const before = Date.now();
  const delayed = await queue.add("delayed", { value: 4 }, { delay: 400 });
  assert.strictEqual(await delayed.waitUntilFinished(events), 8);
  assert.ok(Date.now() - before >= 390);

  await queue.upsertJobScheduler("ticks", { every: 100 }, { name: "tick", data: { value: 0 } });
  await until("three ticks", () => done.filter((name) => name === "tick").length >= 3);
  await queue.removeJobScheduler("ticks");

  await queue.pause();
  const paused = await queue.add("paused", { value: 1 });
  await sleep(200);
  assert.ok(!done.includes("paused"));
  await queue.resume();
  await paused.waitUntilFinished(events);

  const flow = new FlowProducer({ connection });
  const tree = await flow.add({
    name: "parent",
    queueName: "orders",
    data: { value: 5 },
    children: [1, 2, 3].map((value) => ({ name: "child", data: { value }, queueName: "orders" })),
  });
  assert.strictEqual(await tree.job.waitUntilFinished(events), 10);
  assert.strictEqual(Object.keys(await tree.job.getChildrenValues()).length, 3);
  assert.deepStrictEqual(
    Object.values(await tree.job.getChildrenValues()).sort(),
    [2, 4, 6],
  );
  for (const worker of workers) await worker.close();

  // Priorities and a rate limit, with a worker that has one job at a time.
  const ordered = new Queue("ordered", { connection });
  for (const priority of [5, 1, 3, 2, 4]) await ordered.add(`p${priority}`, { value: 1 }, { priority });
  const order = [];
  const one = new Worker("ordered", async (job) => void order.push(job.name), {
    connection,
    limiter: { max: 2, duration: 200 },
  });
  const began = Date.now();
  await until("all jobs in order", () => order.length === 5);
  assert.deepStrictEqual(order, ["p1", "p2", "p3", "p4", "p5"]);
  assert.ok(Date.now() - began >= 390);
  await one.close();

  // A worker that dies leaves a stalled job, which another one takes.
  const fragile = new Queue("fragile", { connection });
  let taken = 0;
  const dying = new Worker("fragile", () => new Promise(() => (taken += 1)), {
    connection,
    lockDuration: 500,
    skipLockRenewal: true,
    skipStalledCheck: true,
  });
  await fragile.add("stalls", { value: 3 });
  await until("it is taken", () => taken === 1);
  await dying.close(true);
  const rescued = [];
  const rescuer = new Worker("fragile", async (job) => void rescued.push(job.name), {
    connection,
    stalledInterval: 300,
    lockDuration: 1000,
  });
  await until("the stalled job", () => rescued.length === 1);
  await rescuer.close();
  for (const some of [queue, ordered, fragile]) {
    await some.obliterate({ force: true });
    await some.close();
  }
  await events.close();
  await flow.close();
}

// redlock: one holder at a time, and locks that are extended.
async function locks() {
  const Redis = require("ioredis").Redis ?? require("ioredis");
  const Redlock = require("redlock").default ?? require("redlock");
  const clients = [1, 2, 3].map(() => new Redis(connection));
  const redlocks = clients.map((client) => new Redlock([client], { retryCount: 400, retryDelay: 5 }));
  let inside = 0;
  let entered = 0;
  await Promise.all(
    redlocks.flatMap((redlock) =>
      [1, 2, 3].map(async () => {
        for (let round = 0; round < 10; round++) {
          const lock = await (redlock.acquire ?? redlock.lock).call(redlock, ["stock:1"], 5000).catch(() => redlock.lock("stock:1", 5000));
          inside += 1;
          assert.strictEqual(inside, 1);
          entered += 1;
          inside -= 1;
          await (lock.release ?? lock.unlock).call(lock);
        }
      }),
    ),
  );
  assert.strictEqual(entered, 90);
  for (const client of clients) client.disconnect();
}

// rate-limiter-flexible: exactly as many points as allowed, for clients that come at once.
async function limits() {
  const Redis = require("ioredis").Redis ?? require("ioredis");
  const { RateLimiterRedis } = require("rate-limiter-flexible");
  const storeClient = new Redis(connection);
  const limiter = new RateLimiterRedis({ storeClient, points: 50, duration: 60 });
  const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => limiter.consume("user:1")));
  assert.strictEqual(outcomes.filter((outcome) => outcome.status === "fulfilled").length, 50);
  const left = await limiter.get("user:1");
  assert.strictEqual(left.remainingPoints, 0);
  storeClient.disconnect();
}

({ queues, locks, limits })[kind]().then(
  () => {
    console.log("well");
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
