import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { type Backend, BACKENDS, FaultBed, type BedOptions } from './bed.js';
import { type FaultId, FAULTS } from './catalog.js';
import type { Row } from './report.js';

/** What a scenario works with. */
export interface Scenario {
  readonly backend: Backend;
  /** Whether this is the short run that is part of `npm test`. */
  readonly isShort: boolean;
  /** Makes the bed; it is closed when the scenario is over. */
  readonly bed: (options?: Omit<BedOptions, 'backend'>) => Promise<FaultBed>;
  /** Notes the time since an instant of `performance.now()` as the time to recover; it may not be longer than that. */
  readonly recovered: (sinceMs: number, atMostMs: number) => void;
}

/** Where and in which form a scenario runs. */
export interface ScenarioOptions {
  /** Backends of the long run. Default all. */
  readonly backends?: readonly Backend[];
  /** Backend of the short run; without one the scenario is only part of the long one. */
  readonly short?: Backend;
  /** Of one run. Default 120 000. */
  readonly timeoutMs?: number;
}

const isShort = process.env['FAULTS_FORM'] !== 'long';
const resultsFile = process.env['FAULTS_RESULTS'];

/** Defines the tests of a scenario of the catalogue, one for each backend. */
export function scenario(id: FaultId, options: ScenarioOptions, run: (scenario: Scenario) => Promise<void>): void {
  const backends = isShort ? [options.short].filter((each) => each !== undefined) : (options.backends ?? BACKENDS);
  if (backends.length === 0) return;

  describe(`${id}: ${FAULTS[id].what}`, function () {
    this.timeout(options.timeoutMs ?? 120_000);
    for (const backend of backends) {
      it(`${FAULTS[id].here} (${backend})`, async () => {
        const row: Partial<Row> = { id, backend };
        let bed: FaultBed | undefined;
        try {
          await run({
            backend,
            isShort,
            async bed(more = {}) {
              bed = await FaultBed.create({ ...more, backend });
              return bed;
            },
            recovered(sinceMs, atMostMs) {
              row.recoveryMs = Math.max(row.recoveryMs ?? 0, performance.now() - sinceMs);
              assert.ok(row.recoveryMs <= atMostMs, `it took ${row.recoveryMs.toFixed(0)} ms, not ${atMostMs}`);
            },
          });
        } catch (error) {
          row.failure = firstWords(error);
          throw error;
        } finally {
          const { sent, lost } = bed?.lastTraffic ?? {};
          Object.assign(row, { sent, lost });
          await bed?.close();
          if (resultsFile !== undefined) appendFileSync(resultsFile, `${JSON.stringify(row)}\n`);
        }
      });
    }
  });
}

/** What was waited for, and what was the case instead. */
function firstWords(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const [message = ''] = error.message.split('\n');
  return error.cause instanceof Error ? `${message}: ${error.cause.message.split('\n')[0] ?? ''}` : message;
}
