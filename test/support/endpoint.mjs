// The far and near ends of the rig's transfers, one process for each namespace that has some. Plain Node, so that it
// starts in 40 ms. Standard input has a line for each call and for its end, {"id","command","args"} and {"id","end"};
// standard output the answers, {"id",…}:
//
//   tcp-receive {address}                           {"port"}, takes one connection, {"bytes","sha256"}
//   tcp-send {address,port,bytes,seed}              random data in odd write sizes, {"bytes","sha256","ms"}
//   tcp-stream {address,port,seed,bytesPerSecond}   {"connected"}, random data until its end, as tcp-send
//   udp-echo {address}                              {"port"}, sends every datagram back until its end
//   udp-exchange {address,port,seed,timeoutMs,sizes}  datagrams of these sizes, {"lost":[sizes],"altered":[sizes]}
//   udp-flows-receive {address}                     {"port"}; at its end {"flows":[{"received","late"}]}
//   udp-flows-send {address,port,flows,datagrams}   so many numbered datagrams of each flow, in bursts; {"sent"}
import { createCipheriv, createHash } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import readline from 'node:readline';

const commands = {
  async 'tcp-receive'({ address }, say) {
    const server = net.createServer().listen({ host: address, port: 0 });
    await once(server, 'listening');
    say({ port: server.address().port });
    const [socket] = await once(server, 'connection');
    server.close();
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const chunk of socket) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    say({ bytes, sha256: hash.digest('hex') });
  },

  async 'tcp-send'({ address, port, bytes, seed }, say) {
    const random = randomBytes(seed);
    const sizes = randomSizes(seed);
    const socket = net.connect({ host: address, port, noDelay: true });
    await once(socket, 'connect');
    const start = performance.now();
    const hash = createHash('sha256');
    for (let left = bytes; left > 0;) {
      const chunk = random(Math.min(left, sizes()));
      left -= chunk.length;
      hash.update(chunk);
      if (!socket.write(chunk)) await once(socket, 'drain');
    }
    socket.end();
    await once(socket, 'close');
    say({ bytes, sha256: hash.digest('hex'), ms: performance.now() - start });
  },

  async 'tcp-stream'({ address, port, seed, bytesPerSecond }, say, end) {
    const random = randomBytes(seed);
    const sizes = randomSizes(seed);
    const socket = net.connect({ host: address, port, noDelay: true });
    await once(socket, 'connect');
    say({ connected: true });
    const start = performance.now();
    const hash = createHash('sha256');
    let bytes = 0;
    while (!end.aborted) {
      const chunk = random(sizes());
      bytes += chunk.length;
      hash.update(chunk);
      if (!socket.write(chunk)) await once(socket, 'drain');
      const aheadMs = (bytes / bytesPerSecond) * 1000 - (performance.now() - start);
      if (aheadMs > 0) await new Promise((resolve) => setTimeout(resolve, aheadMs));
    }
    socket.end();
    await once(socket, 'close');
    say({ bytes, sha256: hash.digest('hex'), ms: performance.now() - start });
  },

  async 'udp-echo'({ address }, say, end) {
    const socket = dgram.createSocket({ type: net.isIPv6(address) ? 'udp6' : 'udp4', recvBufferSize: 1 << 22 });
    socket.on('message', (data, from) => socket.send(data, from.port, from.address));
    socket.bind(0, address);
    await once(socket, 'listening');
    say({ port: socket.address().port });
    end.addEventListener('abort', () => socket.close());
  },

  async 'udp-exchange'({ address, port, seed, timeoutMs, sizes }, say) {
    const random = randomBytes(seed);
    const socket = dgram.createSocket({ type: net.isIPv6(address) ? 'udp6' : 'udp4', recvBufferSize: 1 << 22 });
    socket.connect(port, address);
    await once(socket, 'connect');
    const lost = [];
    const altered = [];
    // One at a time: the answer to a datagram is compared with what was sent, and each size has its own verdict.
    for (const size of sizes) {
      const sent = random(size);
      const answer = await new Promise((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        socket.once('message', (data) => {
          clearTimeout(timer);
          resolve(data);
        });
        socket.once('error', resolve);
        socket.send(sent);
      });
      socket.removeAllListeners();
      if (!Buffer.isBuffer(answer)) lost.push(size);
      else if (!answer.equals(sent)) altered.push(size);
    }
    socket.close();
    say({ lost, altered });
  },

  async 'udp-flows-receive'({ address }, say, end) {
    const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 1 << 22 });
    const flows = new Map();
    socket.on('message', (data, { port: source }) => {
      const flow = flows.get(source) ?? { received: 0, late: 0, last: -1 };
      flows.set(source, flow);
      const serial = data.readUInt32BE(0);
      flow.received += 1;
      // A second copy is as wrong as one that was overtaken.
      if (serial <= flow.last) flow.late += 1;
      flow.last = Math.max(flow.last, serial);
    });
    socket.bind(0, address);
    await once(socket, 'listening');
    say({ port: socket.address().port });
    await once(end, 'abort');
    socket.close();
    say({ flows: [...flows.values()].map(({ received, late }) => ({ received, late })) });
  },

  async 'udp-flows-send'({ address, port, flows, datagrams }, say) {
    const sockets = Array.from({ length: flows }, () => dgram.createSocket({ type: 'udp4', sendBufferSize: 1 << 20 }));
    for (const socket of sockets) {
      socket.connect(port, address);
      await once(socket, 'connect');
    }
    // Bursts of one flow, so that neighbours could be joined, dealt out to several workers, or overtake each other; the
    // last of a burst is shorter, which ends what can be joined, and one in the middle is sent in fragments. The pause
    // keeps the queues from overflowing.
    const BURST = 16;
    const sizeOf = (place) => (place === BURST - 1 ? 300 : place === BURST / 2 ? 3000 : 1000);
    for (let serial = 0; serial < datagrams; serial += BURST) {
      for (const socket of sockets) {
        for (let i = serial; i < Math.min(serial + BURST, datagrams); i++) {
          const data = Buffer.alloc(sizeOf(i % BURST));
          data.writeUInt32BE(i);
          socket.send(data);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.close(resolve))));
    say({ sent: flows * datagrams });
  },
};

/** An endless stream of bytes that depends on the seed alone: AES-CTR's key stream. */
function randomBytes(seed) {
  const key = createHash('sha256').update(String(seed)).digest().subarray(0, 16);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  return (length) => cipher.update(Buffer.alloc(length));
}

/** Write sizes from 1 byte to 200 KB, most of them not a multiple of anything. */
function randomSizes(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const value = state >>> 0;
    return 1 + (value % [7, 1500, 65_599, 200_003][(value >>> 28) & 3]);
  };
}

/** What ends the calls that go on until they are told to. */
const ends = new Map();

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, command, args } = JSON.parse(line);
  if (command === undefined) {
    ends.get(id)?.abort();
    ends.delete(id);
    continue;
  }
  const end = new AbortController();
  ends.set(id, end);
  const say = (answer) => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`);
  commands[command](args, say, end.signal).catch((error) => say({ error: error.message }));
}
