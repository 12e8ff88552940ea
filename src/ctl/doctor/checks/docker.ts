import { VALUES_FILE } from '../../../docker/drop-in.js';
import type { RunningDocker } from '../../../docker/running-docker.js';
import { Prefix } from '../../../ip/prefix.js';
import { type Check, type DoctorFacts, type Found, bridgeOf, overlayNetwork, ownSubnet } from '../facts.js';
import { someOf } from '../text.js';

/** Docker's bridges and what hangs on them. */
export const DOCKER_CHECKS: readonly Check[] = [
  {
    id: 'docker-bridge',
    title: "Docker's bridge lies in the leased subnet",
    follows: ['duplicate-public-ip'],
    run: dockerBridge,
  },
  {
    id: 'container-mtu',
    title: 'containers send no packets that the overlay cannot carry',
    follows: ['docker-bridge'],
    run: containerMtu,
  },
  { id: 'docker-network', title: 'containers of networks of their own are part of the overlay', run: ownNetworks },
];

const RESTART = 'systemctl restart docker';

/** The commands that make Docker follow the lease, which depend on how it is told. */
export function dockerRestart({ docker }: Pick<DoctorFacts, 'docker'>): string {
  switch (docker?.settings) {
    case 'subnet-env':
      return RESTART;
    case 'docker-opts':
      return `tsflannelctl docker-opts -d ${VALUES_FILE['docker-opts']} && ${RESTART}`;
    case 'none':
    case undefined:
      return `tsflannelctl docker enable && ${RESTART}`;
  }
}

function reason(docker: RunningDocker | undefined): string {
  return docker?.settings === 'none' ? ', and Docker was started without a drop-in of tsflanneld' : '';
}

function dockerBridge(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  const subnet = ownSubnet(facts);
  if (network === undefined || subnet === undefined) return [];
  const bridges = facts.links.filter(({ kind }) => kind === 'bridge');
  const placed = bridges.flatMap((bridge) =>
    facts.addresses
      .filter(({ index, address }) => index === bridge.index && address.family === 4)
      .map(({ address, length }) => ({
        bridge,
        address,
        text: `${bridge.name} has ${address.toString()}/${length}`,
        length,
      })),
  );
  const wrong = placed.filter(({ address }) => network.contains(address) && !subnet.contains(address));
  const isServed = placed.some(({ address }) => subnet.contains(address));
  const idle = isServed || wrong.length > 0 ? [] : placed.filter(({ bridge }) => bridge.name === 'docker0');
  const cut = placed.filter(({ address, length }) => subnet.contains(address) && length < subnet.length);
  const command = dockerRestart(facts);
  const evidence = (text: string): string =>
    `${text}, the lease of this host is ${subnet.toString()}${reason(facts.docker)}`;
  return [
    ...wrong.map(({ bridge, text }): Found => ({
      severity: 'error',
      message: `${bridge.name} has an address in the subnet of another host; its containers are not reachable`,
      evidence: evidence(text),
      command,
    })),
    ...idle.map(({ text }): Found => ({
      severity: 'warning',
      message: 'Docker does not use the leased subnet; its containers are not part of the overlay',
      evidence: evidence(text),
      command,
    })),
    ...cut.map(({ bridge, text }): Found => ({
      severity: 'error',
      message: `${bridge.name} takes more than the leased subnet; other hosts are not reachable from its containers`,
      evidence: evidence(text),
      command,
    })),
  ];
}

function containerMtu(facts: DoctorFacts): readonly Found[] {
  const { links, daemon, docker } = facts;
  const mtu = daemon?.mtu ?? facts.env?.mtu;
  const subnet = ownSubnet(facts);
  if (mtu === undefined || subnet === undefined) return [];
  const bridge = bridgeOf(facts, subnet);
  const large = links.filter((link) => link.masterIndex === bridge?.index && link.mtu > mtu);
  const isToldMore = docker?.mtu !== undefined && docker.mtu > mtu;
  if (large.length === 0 && !isToldMore) return [];
  const seen = [
    ...(isToldMore ? [`dockerd runs with --mtu=${docker.mtu}`] : []),
    ...(large.length === 0 ? [] : [`MTU of ${someOf(large.map((link) => `${link.name} ${link.mtu}`))}`]),
  ];
  return [
    {
      severity: 'error',
      message: `containers send packets larger than the overlay carries (${mtu} bytes); where ICMP is lost, connections hang`,
      evidence: `${seen.join('; ')}${reason(docker)}`,
      command: `${dockerRestart(facts)} # containers in networks of their own: docker network create --opt com.docker.network.driver.mtu=${mtu}, and connect them to that`,
    },
  ];
}

/** Bridges that Docker makes for networks of users are named after the first digits of their identifiers. */
const USER_BRIDGE = /^br-[0-9a-f]{12}$/;

function ownNetworks(facts: DoctorFacts): readonly Found[] {
  const network = overlayNetwork(facts);
  const subnet = ownSubnet(facts);
  if (network === undefined || subnet === undefined) return [];
  const outside = facts.links.flatMap((bridge) => {
    if (bridge.kind !== 'bridge' || !USER_BRIDGE.test(bridge.name)) return [];
    const has = facts.addresses.find(({ index, address }) => index === bridge.index && address.family === 4);
    const isUsed = facts.links.some(({ masterIndex }) => masterIndex === bridge.index);
    return has === undefined || !isUsed || network.contains(has.address) ? [] : [{ bridge, has }];
  });
  const [first] = outside;
  if (first === undefined) return [];
  const id = first.bridge.name.slice('br-'.length);
  return [
    {
      severity: 'note',
      message: `containers in ${outside.length === 1 ? 'a network' : `${outside.length} networks`} of Docker's own are not part of the overlay; other hosts do not reach them`,
      evidence: someOf(
        outside.map(({ bridge, has }) => `${bridge.name} has ${Prefix.of(has.address, has.length).toString()}`),
      ),
      command: `for c in $(docker ps -q --filter network=${id}); do docker network connect bridge $c; docker network disconnect ${id} $c; done`,
    },
  ];
}
