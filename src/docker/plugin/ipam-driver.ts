import type { AddressRequest, ContainerAddresses } from '../../container/addresses.js';
import { type PoolId, parsePoolId } from '../../container/pool-id.js';
import { OverlayError, isOverlayError } from '../../errors.js';
import type { IpAddress } from '../../ip/address.js';
import { isAttachmentOwner } from './attachment-owner.js';
import type { EndpointRegister } from './endpoint-register.js';
import type { PluginInterface } from './method.js';
import type { PoolClaims } from './pool-claims.js';
import type { Request } from './request.js';

/**
 * Names of the driver in Docker, one for each of its {@link IpamDriverOptions | forms}. The address space of each is called
 * the same, which comes back in `CreateNetwork`: by that a network with our addresses is told.
 */
export const IPAM_NAMES = { mac: 'tsflannel', noMac: 'tsflannel-ipvlan' } as const;

/** One of {@link IPAM_NAMES}. */
export type IpamName = (typeof IPAM_NAMES)[keyof typeof IPAM_NAMES];

/** Which of our names an address space has; undefined for that of another driver. */
export function ipamNamed(addressSpace: string | undefined): IpamName | undefined {
  return Object.values(IPAM_NAMES).find((name) => name === addressSpace);
}

/** Keys of libnetwork (`netlabel/labels.go`, `ipamapi/labels.go`). */
const ADDRESS_TYPE = 'RequestAddressType';
const GATEWAY_TYPE = 'com.docker.network.gateway';
const ENDPOINT_MAC = 'com.docker.network.endpoint.macaddress';
const ENDPOINT_NAME = 'com.docker.network.endpoint.name';

const NAME_OPTION = 'network';

/** What {@link ipamDriver} is made of. */
export interface IpamDriverOptions {
  /** Whether Docker is to send MAC addresses, which it then gives the interfaces. */
  readonly name: IpamName;
  readonly addresses: ContainerAddresses;
  readonly claims: PoolClaims;
  readonly register: EndpointRegister;
}

/**
 * Docker's IPAM driver over the addresses of the cluster.
 *
 * @remarks Docker is told to send MAC addresses: by them the request of a container is told from one for an auxiliary
 * address, which has none. Those of ipvlan interfaces cannot be set (`ipvlan_netdev_ops`), so there is a form of the driver
 * without; see {@link isAuxiliary} for how it tells them. Docker is told *not* to replay: pools, shared addresses and those of live containers are known
 * from disk and etcd, a replay lacks the options, and a pool whose replay was refused would be released.
 *
 * `FreeAddress` is not Docker's: it is what `tsflannelctl docker-networks release` asks for.
 */
export function ipamDriver({ name, addresses, claims, register }: IpamDriverOptions): PluginInterface {
  return {
    name: 'IpamDriver',
    errorField: 'Error',
    methods: {
      GetCapabilities: () => ({ RequiresMACAddress: name === IPAM_NAMES.mac, RequiresRequestReplay: false }),
      GetDefaultAddressSpaces: () => ({
        LocalDefaultAddressSpace: name,
        GlobalDefaultAddressSpace: name,
      }),

      async RequestPool(request, { signal }) {
        const pool = request.prefix('Pool');
        const { id, subnet } = await addresses.requestPool({
          pool,
          range: request.prefix('SubPool'),
          name: networkName(request.options('Options')),
          family: pool?.family ?? request.family('V6'),
        });
        if (signal.aborted) await claims.leave(id);
        else if (!isOwnClient(request)) await claims.note(id);
        return { PoolID: id, Pool: subnet.toString(), Data: {} };
      },

      async ReleasePool(request) {
        const id = tryPoolId(request);
        if (id === undefined) return {};
        await (isOwnClient(request) ? claims.leave(id) : claims.giveBack(id));
        return {};
      },

      async RequestAddress(request, { signal }) {
        const id = poolId(request);
        const wanted = addressRequest(request, (address) => isAuxiliary(name, claims, id, address));
        const place = { register: register.idFor(id, wanted.owner) };
        const address = await addresses.requestAddress(id, { ...wanted, ...place }, signal);
        const length = wanted.kind === 'container' ? register.addressLength(id) : parsePoolId(id).subnet.length;
        return { Address: `${address.toString()}/${length}`, Data: {} };
      },

      async ReleaseAddress(request) {
        const id = tryPoolId(request);
        const address = request.address('Address');
        if (id !== undefined && address !== undefined) await claims.releaseAddress(id, address);
        return {};
      },

      async FreeAddress(request) {
        const address = request.address('Address');
        const why = address && (await addresses.freeAddress(poolId(request), address, request.flag('Force')));
        return why === undefined ? {} : { Refusal: why };
      },
    },
  };
}

/** tsflannelctl, unlike Docker, knows the network's id before there is one, and says it. */
function isOwnClient(request: Request): boolean {
  return request.text('NetworkID') !== undefined;
}

function addressRequest(request: Request, isAuxiliaryOne: (address: IpAddress) => boolean): AddressRequest {
  const options = request.nested('Options');
  const address = request.address('Address');
  const mac = options.mac(ENDPOINT_MAC);
  const owner = options.text(ENDPOINT_NAME);
  if (options.text(ADDRESS_TYPE) === GATEWAY_TYPE)
    return { kind: 'gateway', address, mac: undefined, owner: undefined };
  // Some address without a MAC address is for an interface of somebody who does not know that we want one.
  const isNamed = mac === undefined && address !== undefined && !isAttachmentOwner(owner);
  return { kind: isNamed && isAuxiliaryOne(address) ? 'auxiliary' : 'container', address, mac, owner };
}

/**
 * Whether an address is an auxiliary one that was asked for by name, without a MAC address.
 *
 * @remarks Docker asks for the auxiliary addresses of a network before it has it made (libnetwork `network.go`,
 * `ipamAllocate()` before `addNetwork()`), and for those of containers afterwards. Of networks of Docker's own drivers
 * nobody hears that they are made: what is asked for by name there, nobody else gets by itself, but other hosts may ask
 * for it as well.
 */
function isAuxiliary(name: IpamName, claims: PoolClaims, id: PoolId, address: IpAddress): boolean {
  return name === IPAM_NAMES.mac || !claims.hasNetwork(id) || claims.isShared(id, address);
}

function networkName(options: Readonly<Record<string, string>>): string | undefined {
  const unknown = Object.keys(options).find((name) => name !== NAME_OPTION);
  if (unknown !== undefined) {
    throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot use --ipam-opt ${unknown}: there is no such option`, {
      hint: `the one that there is: ${NAME_OPTION}=NAME, which tells two networks with the same subnet apart`,
    });
  }
  return options[NAME_OPTION];
}

function poolId(request: Request): PoolId {
  const text = request.text('PoolID') ?? '';
  parsePoolId(text);
  return text as PoolId;
}

/** Undefined for one that was never given: to release it is no mistake of Docker's. */
function tryPoolId(request: Request): PoolId | undefined {
  try {
    return poolId(request);
  } catch (error) {
    if (isOverlayError(error, 'ERR_ADDRESS_POOL')) return undefined;
    throw error;
  }
}
