// TCP relays that misbehave as networks do, in a process of their own, so that they can stand in any namespace.
//
//   relay.mjs TARGET-ADDRESS LISTEN=TARGET…    ports; prints {"ready":true} when all of them listen
//
// Commands are lines of JSON on standard input, each with an id; every one is answered with a line {"id":…}.
//
//   {"id","port","do":"cut"}           resets every connection and every new one
//   {"id","port","do":"hang"}          accepts connections and swallows what comes, as a firewall that drops does
//   {"id","port","do":"heal"}          works again; what was swallowed arrives late
//   {"id","port","do":"delay","ms"}    every byte arrives that much later, in both directions
//   {"id","port","do":"count"}         answers with "messages": gRPC messages that clients have sent
import { once } from 'node:events';
import net from 'node:net';
import readline from 'node:readline';

const [targetAddress, ...routes] = process.argv.slice(2);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const relays = new Map();

class Relay {
  #pairs = new Set();
  #isCut = false;
  #isHanging = false;
  #delayMs = 0;
  messages = 0;

  constructor(listenPort, targetPort) {
    this.server = net.createServer((client) => this.#accept(client, targetPort)).listen(listenPort, '0.0.0.0');
  }

  cut() {
    this.#isCut = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  hang() {
    this.#isHanging = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  heal() {
    this.#isCut = false;
    this.#isHanging = false;
    this.#delayMs = 0;
    for (const pair of this.#pairs) for (const socket of pair) socket.resume();
  }

  delay({ ms }) {
    this.#delayMs = ms;
  }

  count() {
    return { messages: this.messages };
  }

  #accept(client, targetPort) {
    client.on('error', () => undefined);
    if (this.#isCut) {
      client.resetAndDestroy();
      return;
    }
    const upstream = net.connect(targetPort, targetAddress);
    const pair = [client, upstream];
    this.#pairs.add(pair);
    const counter = new MessageCounter(() => (this.messages += 1));
    client.on('data', (chunk) => counter.take(chunk));
    for (const [from, to] of [pair, [upstream, client]]) {
      from.setNoDelay(true);
      from.on('data', (chunk) => this.#pass(to, chunk));
      from.on('error', () => undefined);
      from.on('close', () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
      if (this.#isHanging) from.pause();
    }
  }

  #pass(to, chunk) {
    // Timers of equal length fire in the order they were set, so nothing is overtaken while the delay stays the same.
    if (this.#delayMs === 0) to.write(chunk);
    else setTimeout(() => to.write(chunk), this.#delayMs);
  }
}

/** Counts what a client sends on an HTTP/2 connection: a gRPC message is a DATA frame that is not empty (RFC 9113). */
class MessageCounter {
  #pending = Buffer.from('');
  #skip = 0;
  #isPrefaceRead = false;

  constructor(onMessage) {
    this.onMessage = onMessage;
  }

  take(chunk) {
    const PREFACE = 24;
    const HEADER = 9;
    const DATA = 0;
    let bytes = Buffer.concat([this.#pending, chunk]);
    if (!this.#isPrefaceRead) {
      if (bytes.length < PREFACE) {
        this.#pending = bytes;
        return;
      }
      this.#isPrefaceRead = true;
      bytes = bytes.subarray(PREFACE);
    }
    for (;;) {
      const skipped = Math.min(this.#skip, bytes.length);
      this.#skip -= skipped;
      bytes = bytes.subarray(skipped);
      if (this.#skip > 0 || bytes.length < HEADER) break;
      const length = bytes.readUIntBE(0, 3);
      if (bytes[3] === DATA && length > 0) this.onMessage();
      this.#skip = length;
      bytes = bytes.subarray(HEADER);
    }
    this.#pending = bytes;
  }
}

for (const route of routes) {
  const [listenPort, targetPort] = route.split('=').map(Number);
  const relay = new Relay(listenPort, targetPort);
  await once(relay.server, 'listening');
  relays.set(listenPort, relay);
}
say({ ready: true });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, port, do: action, ...rest } = JSON.parse(line);
  say({ id, ...relays.get(port)[action](rest) });
}
process.exit(0);
