// ioredis over TLS: `tls.js PORT AUTHORITY CERTIFICATE KEY`.

const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const Redis = require("ioredis");

const [port, ...files] = process.argv.slice(2);
const [ca, cert, key] = files.map((file) => readFileSync(file));

async function main() {
  const options = { host: "127.0.0.1", port: Number(port), tls: { ca, cert, key }, maxRetriesPerRequest: 1 };
  const client = new Redis(options);
  assert.strictEqual(await client.call("ACL", "WHOAMI"), "orders");
  const value = "v".repeat(1_000_000);
  assert.strictEqual(await client.set("big", value), "OK");
  assert.strictEqual(await client.get("big"), value);
  const pipeline = client.pipeline();
  for (let index = 0; index < 10_000; index++) pipeline.echo(String(index));
  (await pipeline.exec()).forEach(([error, reply], index) => {
    assert.strictEqual(error, null);
    assert.strictEqual(reply, String(index));
  });
  const subscriber = new Redis(options);
  await subscriber.subscribe("news");
  const message = new Promise((resolve) => subscriber.on("message", (_, text) => resolve(text)));
  await client.publish("news", "hello");
  assert.strictEqual(await message, "hello");
  await Promise.all([client.quit(), subscriber.quit()]);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
