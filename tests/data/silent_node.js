// Events and calls while the node of the watch is silent, by the functions of `example.js` in proto/README.md.
//
// Arguments: a target and a tenant. Prints `ready`, waits for a line on standard input, which says that the node is
// frozen, and prints one JSON object with what happened since then.

const { once } = require('events'), { setTimeout: sleep } = require('timers/promises');
const { call, watch } = require('./example.js');

const tenant = process.argv[3], key = Buffer.from('silent/counter');
const CALLERS = 3;
// Time after which the silent node is known and another one leads, and time of the test.
const KNOWN_MS = 10_000, SILENT_MS = 24_000;

const events = []; // times
const calls = []; // times of their begin and end

async function follow(token) {
  for await (const [seen] of watch(key, token)) for (const _ of seen) events.push(Date.now());
}

async function count() {
  for (;;) {
    const began = Date.now();
    await call('Increment', { tenant, key, delta: 1 });
    calls.push([began, Date.now()]);
    await sleep(100);
  }
}

async function main() {
  follow((await call('Get', { tenant, key })).header.session_token).catch(fail);
  for (let caller = 0; caller < CALLERS; caller++) count().catch(fail);
  while (!events.length) await sleep(10);
  console.log('ready');
  await once(process.stdin, 'data');
  const frozen = Date.now();
  await sleep(SILENT_MS);
  const times = [frozen, ...events.filter((at) => frozen < at), Date.now()];
  const latencies = calls.filter(([began]) => frozen + KNOWN_MS < began).map(([began, done]) => done - began);
  console.log(JSON.stringify({
    events: times.length - 2,
    longest_pause_s: Math.max(...times.slice(1).map((at, before) => at - times[before])) / 1000,
    calls: latencies.length,
    slow_calls: latencies.filter((latency) => latency > 1000).length,
    slowest_call_s: Math.max(...latencies) / 1000,
  }));
  process.exit();
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
