import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { PoolId } from '../../container/pool-id.js';
import { parsePoolId } from '../../container/pool-id.js';
import { OverlayError, describeError } from '../../errors.js';
import type { PublishedPort } from '../../firewall/containers/container-rules.js';
import { IpAddress } from '../../ip/address.js';
import { parseMac } from '../../ip/mac.js';
import { Prefix } from '../../ip/prefix.js';
import { errnoOf } from '../../sys/errno.js';
import type { TextFiles } from '../../sys/text-files.js';
import type { ContainerNetwork, Endpoint, EndpointAddress, NetworkSet, NetworkSubnet, NetworkVlan } from './network.js';
import { optionsOf, readSettings } from './network-settings.js';
import { Request } from './request.js';
import { Turns } from '../../turns.js';

const FILE = 'docker-networks.json';

const MODES = { file: 0o600, directory: 0o700 } as const;

/** Form of the file; one of a later version is not read. */
const VERSION = 1;

/** Everything that this host knows of container networks, as it is on disk. */
interface Contents extends NetworkSet {
  /** Pools that Docker has; the last one with a subnet is that of the next network with it. */
  readonly pools: readonly PoolId[];
}

const EMPTY: Contents = { networks: [], endpoints: [], pools: [] };

/**
 * Networks, endpoints and pools of this host, in memory and on disk.
 *
 * API: {@link load} once, {@link contents}, {@link change}.
 * Limits: the file is written whole; a network takes some 300 bytes, an endpoint some 250.
 * Errors: a change that cannot be written is taken back, and rejects with `ERR_PLUGIN_STATE`.
 */
export class PluginState {
  private current: Contents = EMPTY;
  private currentId: string = randomUUID();
  private readonly file: string;
  private readonly turns = new Turns();

  constructor(private readonly options: { readonly directory: string; readonly files: TextFiles }) {
    this.file = path.join(options.directory, FILE);
  }

  get contents(): Contents {
    return this.current;
  }

  /** Stays the same as long as the file is not lost; written with the first change. */
  get id(): string {
    return this.currentId;
  }

  /**
   * Reads what an earlier process wrote.
   *
   * @throws {@link OverlayError} `ERR_PLUGIN_STATE` for a file that cannot be used, which stays as it is.
   */
  async load(): Promise<void> {
    try {
      const file = Request.parse(await this.options.files.read(this.file));
      this.current = decode(file);
      this.currentId = file.text('id') ?? this.currentId;
    } catch (cause) {
      if (errnoOf(cause) === 'ENOENT') return;
      throw new OverlayError('ERR_PLUGIN_STATE', `cannot use ${this.file}: ${describeError(cause)}`, {
        cause,
        hint: 'move it away; then remove the networks of this driver from Docker and create them again',
      });
    }
  }

  /** Makes a change and resolves when it is on disk. */
  change(make: (before: Contents) => Contents): Promise<void> {
    return this.turns.take(async () => {
      const before = this.current;
      const after = make(before);
      if (after === before) return;
      try {
        await this.options.files.write(this.file, encode(after, this.id), MODES);
      } catch (cause) {
        throw new OverlayError('ERR_PLUGIN_STATE', `cannot write ${this.file}: ${describeError(cause)}`, {
          cause,
          hint: 'make the directory writable, or name another one with --state-dir',
        });
      }
      this.current = after;
    });
  }
}

function encode({ networks, endpoints, pools }: Contents, id: string): string {
  return `${JSON.stringify({ version: VERSION, id, networks: networks.map(encodeNetwork), endpoints, pools }, undefined, 1)}\n`;
}

function encodeNetwork(network: ContainerNetwork): object {
  const { id, parent, vlan, isInternal, subnets } = network;
  return { id, parent, vlan, isInternal, subnets, options: optionsOf(network) };
}

function decode(file: Request): Contents {
  if (file.number('version') !== VERSION) throw new TypeError('it is of another version of tsflannel');
  return {
    networks: file.list('networks').map(decodeNetwork),
    endpoints: file.list('endpoints').map(decodeEndpoint),
    pools: file.texts('pools').map((id) => {
      parsePoolId(id);
      return id as PoolId;
    }),
  };
}

function decodeNetwork(saved: Request): ContainerNetwork {
  const vlan = saved.optional('vlan');
  return {
    ...readSettings(saved.options('options')).settings,
    id: saved.id('id'),
    parent: saved.required('parent'),
    vlan: vlan && decodeVlan(vlan),
    isInternal: saved.flag('isInternal'),
    subnets: saved.list('subnets').map(decodeSubnet),
  };
}

function decodeVlan(saved: Request): NetworkVlan {
  return { id: saved.number('id'), trunk: saved.text('trunk') };
}

function decodeSubnet(saved: Request): NetworkSubnet {
  const pool = saved.text('pool');
  if (pool !== undefined) parsePoolId(pool);
  const host = saved.address('host');
  return {
    subnet: Prefix.parse(saved.required('subnet')),
    gateway: saved.address('gateway'),
    auxiliary: saved.texts('auxiliary').map((each) => IpAddress.parse(each)),
    pool: pool as PoolId,
    ...(host === undefined ? {} : { host }),
  };
}

function decodeEndpoint(saved: Request): Endpoint {
  const ports = saved.list('ports').map(decodePort);
  return {
    id: saved.id('id'),
    networkId: saved.id('networkId'),
    mac: parseMac(saved.required('mac')),
    addresses: saved.list('addresses').map(decodeAddress),
    sandbox: saved.text('sandbox'),
    isStale: saved.flag('isStale'),
    ...(ports.length === 0 ? {} : { ports }),
  };
}

function decodePort(saved: Request): PublishedPort {
  const protocol = saved.required('protocol');
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') throw new TypeError(`no protocol ${protocol}`);
  return {
    protocol,
    hostAddress: saved.address('hostAddress'),
    hostPort: saved.number('hostPort'),
    address: IpAddress.parse(saved.required('address')),
    port: saved.number('port'),
  };
}

function decodeAddress(saved: Request): EndpointAddress {
  return { address: IpAddress.parse(saved.required('address')), length: saved.number('length') };
}
