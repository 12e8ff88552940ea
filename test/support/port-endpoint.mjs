// Who reaches which port. Plain Node, so that it starts in 40 ms inside any namespace.
//
//   serve PORT...   answers each TCP connection and datagram with the caller's address; prints "serving"
//   ask             calls as JSON on standard input, [{protocol,address,port,limitMs}]; prints what was answered, or null
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

const [command, ...ports] = process.argv.slice(2);
const plain = (address) => address.replace(/^::ffff:/, '');

async function serve(port) {
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.end(plain(socket.remoteAddress ?? ''));
  });
  await once(server.listen({ host: '::', port }), 'listening');
  // One for each family: an answer from an IPv6 socket would come from an address of its own choice as well.
  for (const type of ['udp4', 'udp6']) {
    const socket = dgram.createSocket({ type, ipv6Only: type === 'udp6' });
    socket.on('message', (_, from) => socket.send(from.address, from.port, from.address));
    socket.bind(port);
    await once(socket, 'listening');
  }
}

function askTcp({ address, port }) {
  return new Promise((resolve) => {
    const socket = net.connect({ host: address, port });
    let text = '';
    socket.on('data', (data) => (text += data));
    socket.on('error', () => resolve(null));
    socket.on('end', () => resolve(text));
  });
}

function askUdp({ address, port }) {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (data) => resolve(data.toString()));
    socket.on('error', () => resolve(null));
    socket.connect(port, address, (error) => {
      if (error) resolve(null);
      else socket.send('?');
    });
  });
}

if (command === 'serve') {
  await Promise.all(ports.map((port) => serve(Number(port))));
  process.stdout.write('serving\n');
} else {
  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  const ask = async (call) => {
    const late = new Promise((resolve) => setTimeout(resolve, call.limitMs, null));
    return Promise.race([call.protocol === 'tcp' ? askTcp(call) : askUdp(call), late]);
  };
  const answers = await Promise.all(JSON.parse(input).map(ask));
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
}
