// Ends a tunnel of the addon in ways that a daemon never would, to see what is left. Run in a namespace of its own:
//
//   node --expose-gc addon-lifecycle.mjs ADDON SCENARIO ADDRESS
//
// Prints one line of JSON: threads and descriptors before and after, and whether the device is still there.
import { execFileSync } from 'node:child_process';
import dgram from 'node:dgram';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

const [addonFile, scenario, address] = process.argv.slice(2);
const { Tunnel } = createRequire(import.meta.url)(addonFile);
const number = (text) => text.split('.').reduce((value, octet) => value * 256 + Number(octet), 0);

const options = {
  device: 'flannel0',
  bindAddress: number(address),
  port: 8285,
  workers: 2,
  disabledOffloads: 0,
  inheritedTun: [],
  inheritedSockets: [],
  own: Uint32Array.of(number('10.5.1.0'), 24),
  routes: Uint32Array.of(number('10.5.2.0'), 24, number('192.0.2.2')),
  mtu: 1472,
  verifySource: 1,
  icmpSource: number('10.5.1.0'),
};
const hasDevice = () =>
  existsSync('/sys/class/net/flannel0') || execFileSync('ip', ['-o', 'link']).includes('flannel0');
const threads = () => readdirSync('/proc/self/task').length;
const descriptors = () => readdirSync('/proc/self/fd').length;

async function inWorker(end) {
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { Tunnel } = require(workerData.addonFile);
    globalThis.tunnel = new Tunnel(workerData.options, () => {});
    parentPort.postMessage('open');
    parentPort.on('message', () => process.exit(0));
  `;
  const worker = new Worker(source, { eval: true, workerData: { addonFile, options } });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  if (!hasDevice()) throw new Error('the tunnel did not open');
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  await end(worker);
  await exited;
}

const scenarios = {
  terminate: () => inWorker((worker) => worker.terminate()),
  exit: () => inWorker((worker) => worker.postMessage('exit')),
  async collect() {
    (() => new Tunnel(options, () => {}))();
    for (let i = 0; i < 100 && hasDevice(); i++) {
      globalThis.gc();
      await sleep(10);
    }
  },
  async closeUnderLoad() {
    const tunnel = new Tunnel(options, () => {});
    const up = ['link set flannel0 up', 'address add 10.5.1.0/32 dev flannel0', 'route add 10.5.0.0/16 dev flannel0'];
    execFileSync('ip', ['-batch', '-'], { input: up.join('\n') });
    const socket = dgram.createSocket('udp4');
    let isSending = true;
    const send = () => isSending && socket.send('x'.repeat(100), 9, '10.5.2.1', () => setImmediate(send));
    for (let i = 0; i < 20; i++) send();
    while (tunnel.counters().txPackets < 1000) await sleep(1);
    const closing = [tunnel.close(), tunnel.close()];
    tunnel.counters();
    tunnel.update(options);
    await Promise.all(closing);
    await tunnel.close();
    isSending = false;
    await new Promise((resolve) => socket.close(resolve));
    if (tunnel.counters().txPackets < 1000 || tunnel.tunDescriptors().length > 0) throw new Error('not closed');
  },
  /** The process ends with the tunnel open; the caller sees whether it does, and how. */
  abandon() {
    globalThis.tunnel = new Tunnel(options, () => {});
  },
};

// One run first, so that what Node starts lazily is there when counting begins.
await scenarios[scenario]();
const before = { threads: threads(), descriptors: descriptors() };
if (scenario !== 'abandon') {
  for (let i = 0; i < 5; i++) await scenarios[scenario]();
}
globalThis.gc();
await sleep(50);
const after = { threads: threads(), descriptors: descriptors() };
console.log(JSON.stringify({ before, after, hasDevice: hasDevice() }));
