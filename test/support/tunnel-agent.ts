// Runs tunnels inside one namespace for the tests: JSON lines on standard input, one answer per line on standard output.
// It is a process of its own because a tunnel opens sockets long after it was opened, and those must be in the namespace too.
import { once } from 'node:events';
import readline from 'node:readline';
import { openNativeTunnel } from '../../src/dataplane/native.js';
import { openPortableTunnel } from '../../src/dataplane/portable.js';
import type { Offload, Tunnel, TunnelEvent } from '../../src/dataplane/tunnel.js';
import { OverlayError } from '../../src/errors.js';
import { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { TunnelSpec, VerifySource } from '../../src/dataplane/tunnel-spec.js';
import { duplicate } from '../../src/sys/libc.js';

/** {@link TunnelSpec} with addresses as text. */
export interface PlainSpec {
  readonly device: string;
  readonly bindAddress: string;
  readonly port: number;
  readonly mtu: number;
  readonly verifySource: VerifySource;
  readonly icmpSource: string;
  readonly ownPrefixes: readonly string[];
  /** Subnet and public IP. */
  readonly peers: readonly (readonly [string, string])[];
}

/** Arguments of `open`. */
export interface OpenRequest {
  readonly kind: 'native' | 'portable';
  readonly spec: PlainSpec;
  readonly workers: number;
  readonly disabledOffloads: readonly Offload[];
  /** Reuse the descriptors that `keepDescriptors` kept. */
  readonly inherits: boolean;
}

/** What `state` answers. */
export interface TunnelState {
  readonly kind: Tunnel['kind'];
  readonly device: string;
  readonly workers: number;
  readonly offloads: Tunnel['offloads'];
  readonly generation: number;
  readonly counters: ReturnType<Tunnel['counters']>;
  readonly peerCounters: Readonly<
    Record<string, { txPackets: number; txBytes: number; rxPackets: number; rxBytes: number }>
  >;
  readonly events: readonly TunnelEvent[];
}

const tunnels = new Map<number, { readonly tunnel: Tunnel; readonly events: TunnelEvent[] }>();
let kept: { tun: number[]; socket: number[] } | undefined;
let serial = 0;

function toSpec(plain: PlainSpec): TunnelSpec {
  return {
    ...plain,
    bindAddress: IpAddress.parse(plain.bindAddress),
    icmpSource: IpAddress.parse(plain.icmpSource),
    ownPrefixes: plain.ownPrefixes.map((prefix) => Prefix.parse(prefix)),
    peers: plain.peers.map(([subnet, publicIp]) => ({
      subnet: Prefix.parse(subnet),
      publicIp: IpAddress.parse(publicIp),
    })),
  };
}

function find(handle: number): { readonly tunnel: Tunnel; readonly events: TunnelEvent[] } {
  const entry = tunnels.get(handle);
  if (entry === undefined) throw new Error(`there is no tunnel ${handle}`);
  return entry;
}

const calls: Record<string, (argument: never) => unknown> = {
  async open({ kind, spec, workers, disabledOffloads, inherits }: OpenRequest): Promise<number> {
    const events: TunnelEvent[] = [];
    const open = kind === 'native' ? openNativeTunnel : openPortableTunnel;
    const tunnel = await open({
      spec: toSpec(spec),
      workers,
      disabledOffloads,
      onEvent: (event) => events.push(event),
      ...(inherits && kept !== undefined ? { inherited: kept } : {}),
    });
    serial += 1;
    tunnels.set(serial, { tunnel, events });
    return serial;
  },

  state(handle: number): TunnelState {
    const { tunnel, events } = find(handle);
    const { kind, device, workers, offloads, generation } = tunnel;
    const peerCounters = Object.fromEntries(tunnel.peerCounters());
    return { kind, device, workers, offloads, generation, counters: tunnel.counters(), peerCounters, events };
  },

  update: ({ handle, spec }: { handle: number; spec: PlainSpec }): boolean => find(handle).tunnel.update(toSpec(spec)),

  close: async (handle: number): Promise<void> => find(handle).tunnel.close(),

  /** Duplicates a tunnel's descriptors, as the service manager's store does. */
  keepDescriptors(handle: number): void {
    const { tun, socket } = find(handle).tunnel.descriptors();
    kept = { tun: tun.map(duplicate), socket: socket.map(duplicate) };
  },

  dropPrivileges(): void {
    process.setegid?.(65534);
    process.seteuid?.(65534);
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const { id, call, argument } = JSON.parse(line) as { id: number; call: string; argument: never };
  const answer = (value: object): boolean => process.stdout.write(`${JSON.stringify({ id, ...value })}\n`);
  void Promise.resolve()
    .then(() => calls[call]?.(argument))
    .then(
      (value) => answer({ value: value ?? null }),
      (error: unknown) => {
        if (error instanceof OverlayError) {
          const { code, message, hint, isRetryable } = error;
          answer({ error: { code, message, hint, isRetryable } });
        } else answer({ error: { code: 'ERR_UNEXPECTED', message: String(error) } });
      },
    );
});
process.stdout.write('ready\n');
await once(lines, 'close');
process.exit(0);
