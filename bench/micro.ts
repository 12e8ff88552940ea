import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../test/support/netns.js';

/** One micro-benchmark of the packet core, against a simple implementation of the same thing. */
export interface MicroResult {
  readonly name: string;
  /** Such as `ns/packet`. */
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Time of the simple implementation in the same unit. */
  readonly reference: number;
  readonly gigabytesPerSecond?: number;
  readonly memoryBytes?: number;
}

/** Builds and runs the micro-benchmarks. */
export async function measureMicro(): Promise<readonly MicroResult[]> {
  const directory = fileURLToPath(new URL('../test/native', import.meta.url));
  await run(['make', '-s', '--no-print-directory', '-C', directory, 'build/release/micro'], { timeoutMs: 600_000 });
  const { stdout } = await run([path.join(directory, 'build/release/micro')], { timeoutMs: 300_000 });
  return (JSON.parse(stdout) as { cases: MicroResult[] }).cases;
}
