import { OFFLOADS } from '../src/dataplane/tunnel.js';

/** One way to carry packets between the two hosts, as a configuration of a daemon. */
export interface Case {
  /** For `--only`, files and raw results. */
  readonly name: string;
  /** For tables and charts. */
  readonly title: string;
  /** Value of `Backend` in the network configuration. */
  readonly backend: { readonly Type: string } & Readonly<Record<string, unknown>>;
  /** Flags of the daemon. */
  readonly args: readonly string[];
  /** Program to run instead of ours. */
  readonly stock?: string;
  /** What is worth measuring: everything, or only what an offload changes. */
  readonly scope: 'full' | 'offload';
  /** Whether packets have to pass by the kernel path, or the measurement is none. */
  readonly usesKernelPath?: boolean;
}

/** The case that others are compared with. */
export const REFERENCE = 'vxlan';

const udp = { Type: 'udp' };

/**
 * All cases.
 *
 * @param stock - a stock flanneld to measure beside ours.
 */
export function allCases(stock?: string): Case[] {
  const native = (workers: number, ...more: readonly string[]): string[] => [
    '--datapath=native',
    `--udp-workers=${workers}`,
    ...more,
  ];
  return [
    { name: 'host-gw', title: 'plain routing', backend: { Type: 'host-gw' }, args: [], scope: 'full' },
    { name: REFERENCE, title: 'kernel VXLAN', backend: { Type: 'vxlan' }, args: [], scope: 'full' },
    { name: 'native-1', title: 'udp, native, 1 worker', backend: udp, args: native(1), scope: 'full' },
    { name: 'native-2', title: 'udp, native, 2 workers', backend: udp, args: native(2), scope: 'full' },
    ...['kernel', 'auto'].map((datapath) => ({
      name: datapath,
      title: `udp, ${datapath}`,
      backend: udp,
      args: [`--datapath=${datapath}`],
      scope: 'full' as const,
      usesKernelPath: true,
    })),
    { name: 'portable', title: 'udp, portable', backend: udp, args: ['--datapath=portable'], scope: 'full' },
    ...(stock === undefined
      ? []
      : ([
          { name: 'stock-udp', title: 'stock flanneld, udp', backend: udp, args: [], stock, scope: 'full' },
          {
            name: 'stock-vxlan',
            title: 'stock flanneld, VXLAN',
            backend: { Type: 'vxlan' },
            args: [],
            stock,
            scope: 'full',
          },
        ] as const)),
    ...OFFLOADS.map((offload) => ({
      name: `no-${offload}`,
      title: `native, 1 worker, no ${offload}`,
      backend: udp,
      args: native(1, `--disable-offloads=${offload}`),
      scope: 'offload' as const,
    })),
  ];
}

/** The cases of `--quick`: enough to see whether the native path is in order. */
export const QUICK_CASES: readonly string[] = ['host-gw', REFERENCE, 'native-1', 'auto', 'portable'];

/**
 * The cases with these names; a name that ends in `*` stands for all that begin so.
 *
 * @throws RangeError that lists the names there are.
 */
export function chooseCases(cases: readonly Case[], names: readonly string[]): Case[] {
  const matches = (name: string, wanted: string): boolean =>
    wanted.endsWith('*') ? name.startsWith(wanted.slice(0, -1)) : name === wanted;
  for (const wanted of names) {
    if (!cases.some(({ name }) => matches(name, wanted))) {
      throw new RangeError(`there is no case ${wanted}; the cases are ${cases.map(({ name }) => name).join(', ')}`);
    }
  }
  return cases.filter(({ name }) => names.some((wanted) => matches(name, wanted)));
}
