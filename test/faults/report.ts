import type { Backend } from './bed.js';
import { type FaultId, FAULTS } from './catalog.js';

/** What one run of a scenario gave. */
export interface Row {
  readonly id: FaultId;
  readonly backend: Backend;
  /** Pings, and those without an answer; undefined if the scenario ended before they were counted. */
  sent?: number;
  lost?: number;
  recoveryMs?: number;
  /** First words of why the test failed. */
  failure?: string;
}

/**
 * Markdown of the results: a line for each fault of the catalogue, in its order, figures only where there are any.
 *
 * @param only - the faults to show; default all.
 */
export function faultTable(rows: readonly Row[], only?: ReadonlySet<FaultId>): string {
  const shown = Object.entries(FAULTS).filter(([id]) => only?.has(id as FaultId) !== false);
  const lines = shown.map(([id, fault]) => {
    const own = rows.filter((row) => row.id === id);
    return [
      fault.what,
      fault.here,
      joined(own.map(lostText)),
      joined(own.map(recoveryText)),
      fault.stock,
      `\`npm run test:faults -- --only ${id}\``,
    ];
  });
  const header = ['fault', 'what happens here', 'pings lost', 'time to recover', 'stock flannel', 'repeat it'];
  const table = [header, header.map(() => '---'), ...lines];
  return `${table.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}

function joined(texts: readonly string[]): string {
  return texts.filter((text) => text !== '').join('<br>');
}

function lostText({ backend, sent, lost, failure }: Row): string {
  const counted = lost === undefined || sent === undefined ? '' : `${backend}: ${lost} of ${sent}`;
  return failure === undefined ? counted : `${counted === '' ? backend : counted} **failed**: ${escape(failure)}`;
}

function recoveryText({ backend, recoveryMs }: Row): string {
  return recoveryMs === undefined ? '' : `${backend}: ${(recoveryMs / 1000).toFixed(1)} s`;
}

function escape(text: string): string {
  return text.replaceAll('|', '\\|').slice(0, 200);
}

const BEGIN = '<!-- results: begin -->';
const END = '<!-- results: end -->';

/** A page with the table between its two marks replaced. */
export function withTable(page: string, table: string): string {
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`the page has no ${BEGIN} … ${END}`);
  return `${page.slice(0, from + BEGIN.length)}\n\n${table}\n${page.slice(to)}`;
}
