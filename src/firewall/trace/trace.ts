import type { Hook, TracedChain, TracedPacket, TracedRule, TracedTable } from './ruleset.js';

/** The rule, or the policy of a chain, that ends a packet's way. */
export interface Obstacle {
  readonly table: TracedTable;
  /** The chain with the rule, which another may have jumped to; with the policy, the base chain. */
  readonly chain: TracedChain;
  /** Undefined if it is the policy. */
  readonly rule: TracedRule | undefined;
  readonly hook: Hook;
}

/** How a chain ends for a packet; several ends where a rule may match or may not. */
interface Ends {
  /** The packet goes on to the next base chain, or to the caller's next rule where `isReturned`. */
  readonly canPass: boolean;
  readonly canReturn: boolean;
  /** The last rule that may drop it: where nothing passes and nothing returns, the one that drops what still gets there. */
  readonly drop: Pick<Obstacle, 'chain' | 'rule'> | undefined;
}

/** Kernels refuse a deeper nest of jumps (`NFT_JUMP_STACK_SIZE`). */
const MAX_DEPTH = 16;

/**
 * Leads a packet past all base chains of a hook, in the order of their priorities, as the kernel does.
 *
 * @returns what drops the packet for certain; undefined if it passes, or may pass as far as can be told.
 */
export function traceHook(tables: readonly TracedTable[], packet: TracedPacket, hook: Hook): Obstacle | undefined {
  const chains = tables
    .flatMap((table) => [...table.chains.values()].map((chain) => ({ table, chain })))
    .filter(({ chain: { base } }) => base?.hook === hook && isOnDevice(base.devices, packet))
    .sort((a, b) => (a.chain.base?.priority ?? 0) - (b.chain.base?.priority ?? 0));
  for (const { table, chain } of chains) {
    const { canPass, canReturn, drop } = walk(table, chain, packet, 0);
    if (canPass) continue;
    // The end of a base chain is its policy.
    if (canReturn && chain.base?.policy !== 'drop') continue;
    const place = drop !== undefined && !canReturn ? drop : { chain, rule: undefined };
    return { table, ...place, hook };
  }
  return undefined;
}

function isOnDevice(devices: readonly string[] | undefined, { inDevice }: TracedPacket): boolean {
  return devices === undefined || (typeof inDevice === 'string' && devices.includes(inDevice));
}

function walk(table: TracedTable, chain: TracedChain, packet: TracedPacket, depth: number): Ends {
  let drop: Ends['drop'];
  let canPass = false;
  let canReturn = false;
  for (const rule of chain.rules) {
    let canContinue = false;
    for (const action of rule.decide(packet)) {
      switch (action.kind) {
        case 'continue':
          canContinue = true;
          break;
        case 'return':
          canReturn = true;
          break;
        case 'accept':
        case 'unknown':
          canPass = true;
          break;
        case 'drop':
          drop = { chain, rule };
          break;
        case 'jump':
        case 'goto': {
          const target = table.chains.get(action.chain);
          // What cannot be followed may do anything.
          if (target === undefined || depth >= MAX_DEPTH) canPass = true;
          const ends = target === undefined || depth >= MAX_DEPTH ? undefined : walk(table, target, packet, depth + 1);
          canPass ||= ends?.canPass === true;
          drop = ends?.drop ?? drop;
          if (ends?.canReturn === true && action.kind === 'jump') canContinue = true;
          if (ends?.canReturn === true && action.kind === 'goto') canReturn = true;
        }
      }
    }
    if (!canContinue) return { canPass, canReturn, drop };
  }
  return { canPass, canReturn: true, drop };
}
