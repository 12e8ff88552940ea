// Script of the status page: asks `/status` every two seconds, `/history` every five, and draws what has changed. Text
// reaches the document only through `textContent` and attributes, never as HTML, because peers choose some of it.
import type {
  DaemonStatus,
  HistoryEntry,
  PathStatus,
  PeerStatus,
  Problem,
  StoreStatus,
  TunnelStatus,
} from '../status.js';

const POLL_MS = 2000;
const STEP_MS = 5000;
const HOUR_MS = 3_600_000;
const ANSWER_MS = 5000;

/** Up to so many peers have a name in the picture; up to so many have a dot each. */
const LABELLED = 24;
const SINGLE = 600;

/** Dots, each a range of subnets, where there are more peers than {@link SINGLE}. */
const GROUPS = 300;

const TABLE_ROWS = 100;
const TEXT_LENGTH = 400;

/** Colours of the style sheet for backends, `c0` to `c7`. */
const COLOURS = 8;

const SVG = 'http://www.w3.org/2000/svg';

type Child = Element | string;
type Attributes = Readonly<Record<string, string | number>>;
type Tone = 'good' | 'warn' | 'bad' | '';

/** The counters of the last answer, which rates are made of. */
interface Sample {
  readonly atMs: number;
  readonly pid: number;
  readonly bytes: ReadonlyMap<string, number>;
}

/** One peer in the picture, or a range of neighbouring subnets of one backend. */
interface Dot {
  readonly backend: string;
  readonly isLost: boolean;
  readonly subnet: string;
  readonly label: string;
  count: number;
  bps: number;
  title: string;
}

interface Series {
  readonly name: string;
  readonly colour: number;
  readonly of: (entry: HistoryEntry) => number | null;
}

interface Trouble {
  readonly tone: Tone;
  readonly text: string;
}

let history: readonly HistoryEntry[] = [];
let historyAskedMs = -STEP_MS;
let rangeMs = 300_000;
let last: Sample | undefined;
let current: DaemonStatus | undefined;
let rates: ReadonlyMap<string, number> = new Map();
let timer: ReturnType<typeof setTimeout> | undefined;

// Elements

function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no element ${id}`);
  return element;
}

const filter = byId('filter') as HTMLInputElement;

function fill<T extends Element>(element: T, attributes: Attributes, children: Child | readonly Child[]): T {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...listOf(children));
  return element;
}

function html(name: string, attributes: Attributes = {}, children: Child | readonly Child[] = []): HTMLElement {
  return fill(document.createElement(name), attributes, children);
}

function svg(name: string, attributes: Attributes = {}, children: Child | readonly Child[] = []): SVGElement {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function listOf(children: Child | readonly Child[]): readonly Child[] {
  return typeof children === 'string' || children instanceof Element ? [children] : children;
}

/** Shows children where others were. What has not changed stays, and with it what somebody has selected in it. */
function show(id: string, children: Child | readonly Child[]): void {
  const place = byId(id);
  const next = listOf(children);
  const isSame = (child: Child, index: number): boolean => {
    const old = place.childNodes[index];
    return typeof child === 'string' ? old instanceof Text && old.data === child : child.isEqualNode(old ?? null);
  };
  if (next.length !== place.childNodes.length || !next.every(isSame)) place.replaceChildren(...next);
}

// Texts

/** Peers choose some of the texts: nothing in them reorders, breaks or floods what is shown. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  const text = value.length <= TEXT_LENGTH ? value : `${value.slice(0, TEXT_LENGTH)}… (${value.length} characters)`;
  return text.replace(
    /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function short(value: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let step = 0;
  while (value >= 1000 && step < prefixes.length - 1) {
    value /= 1000;
    step++;
  }
  const digits = value === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${prefixes[step] ?? ''}${unit}`;
}

/** The two largest units, rounded before they are split, so that none is ever full: never 23 h 60 min. */
function span(seconds: number): string {
  const s = Math.round(Math.abs(seconds));
  const min = Math.round(s / 60);
  const h = Math.round(s / 3600);
  const two = (large: number, unit: string, small: number, lesser: string): string =>
    `${large} ${unit}${small > 0 ? ` ${small} ${lesser}` : ''}`;
  if (s < 120) return `${s} s`;
  if (min < 60) return `${min} min`;
  if (min < 48 * 60) return two(Math.floor(min / 60), 'h', min % 60, 'min');
  return two(Math.floor(h / 24), 'd', h % 24, 'h');
}

function millis(ms: number): string {
  return ms >= 1000 ? short(ms / 1000, 's') : `${ms.toFixed(ms >= 10 ? 0 : ms >= 1 ? 1 : 2)} ms`;
}

/** The one form of an instant: local, without the doubts about day and month of a locale. */
function instant(iso: string): HTMLElement {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return html('time', { class: 'soft' }, iso);
  const two = (value: number): string => String(value).padStart(2, '0');
  const date = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join('-');
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':');
  const utc = at.toISOString();
  return html('time', { class: 'soft', datetime: utc, title: utc }, `${date} ${time}`);
}

function plural(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** The next of 1, 2, 3, 5, 10, 20, …. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 3, 5].find((step) => step * power >= value) ?? 10) * power;
}

// What the status means

const isSilent = ({ state }: PathStatus): boolean => state === 'unreachable';
const isUnreachable = ({ reachability }: PeerStatus): boolean => reachability.some(isSilent);
const isLost = (peer: PeerStatus): boolean => peer.skipped !== null || isUnreachable(peer);

function dropsOf({ tunnels, devices }: DaemonStatus): ReadonlyMap<string, number> {
  const drops = new Map<string, number>();
  const add = (reason: string, count: number): void => {
    drops.set(reason, (drops.get(reason) ?? 0) + count);
  };
  for (const { counters } of tunnels) for (const [reason, count] of Object.entries(counters.drops)) add(reason, count);
  for (const { txDropped, txErrors, rxDropped, rxErrors } of devices) {
    add('device out', txDropped + txErrors);
    add('device in', rxDropped + rxErrors);
  }
  return drops;
}

/** Bits per second to and from each peer since the last answer of the same process. */
function takeRates({ peers, pid }: DaemonStatus, atMs: number): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  for (const { subnet, traffic } of peers) if (traffic !== null) bytes.set(subnet, traffic.txBytes + traffic.rxBytes);
  const found = new Map<string, number>();
  if (last?.pid === pid && atMs > last.atMs) {
    for (const [subnet, count] of bytes) {
      const before = last.bytes.get(subnet);
      if (before !== undefined) found.set(subnet, Math.max(0, (8000 * (count - before)) / (atMs - last.atMs)));
    }
  }
  last = { atMs, pid, bytes };
  return found;
}

function rateOf({ subnet }: PeerStatus): number {
  return rates.get(subnet) ?? 0;
}

function latency({ counters: { roundTripTimes } }: StoreStatus): string {
  const recent = history.slice(-60).flatMap(({ etcdMs }) => etcdMs ?? []);
  const answers = sum(roundTripTimes.buckets);
  const ms = recent.at(-1) ?? (answers > 0 ? (1000 * roundTripTimes.sumSeconds) / answers : undefined);
  return ms === undefined ? '' : `answers in ${millis(ms)}`;
}

/** What is wrong at this moment, as the status has it. */
function troublesOf(status: DaemonStatus): readonly Trouble[] {
  const list: Trouble[] = [];
  const add = (tone: Tone, text: string): void => {
    list.push({ tone, text });
  };
  const { firewall, lease, network, peerSet, peers, reachability, reconcile, store, subnetFile } = status;
  for (const conflict of reconcile.conflicts) add('bad', `In the way: ${conflict}`);
  for (const { object, error } of reconcile.failures) add('bad', `Refused by the kernel: ${object}: ${error}`);
  if (!store.isConnected) add('bad', `etcd is away: ${store.error ?? 'it has not answered yet'}`);
  if (subnetFile.error !== null) add('bad', subnetFile.error);
  const rejected = network?.rejected ?? null;
  if (rejected !== null) add('bad', `The configuration in etcd is not used: ${rejected}`);
  if (firewall !== null && firewall.mode !== null && !firewall.isInPlace) {
    add('bad', `Rules of the packet filter are missing${firewall.lastError === null ? '' : `: ${firewall.lastError}`}`);
  }
  const rivals = lease?.rivals ?? [];
  if (rivals.length > 0) {
    const more = rivals.length > 3 ? ` and ${rivals.length - 3} more` : '';
    add('bad', `Other leases name addresses of the own one: ${rivals.slice(0, 3).join(', ')}${more}`);
  }
  const skipped = peers.filter((peer) => peer.skipped !== null).length;
  const silent = peers.filter((peer) => peer.skipped === null && isUnreachable(peer)).length;
  if (skipped > 0) add('bad', `${plural(skipped, 'peer is', 'peers are')} not reached; the table says why`);
  if (silent > 0) {
    const who = plural(silent, 'peer does', 'peers do');
    add('bad', `${who} not answer through the overlay; tsflannelctl ping says how far packets come`);
  }
  if ((reachability?.error ?? null) !== null) add('warn', `Peers are not probed: ${reachability?.error ?? ''}`);
  const doubted = sum(Object.values(peerSet.quarantinedCounts));
  if (doubted > 0) {
    const example = peerSet.quarantined.slice(0, 1).map(({ key, detail }) => `${key}: ${detail}`);
    add('warn', `${plural(doubted, 'lease is', 'leases are')} not believed, such as ${example.join()}`);
  }
  if (peerSet.badKeyCount > 0) {
    const what = plural(peerSet.badKeyCount, 'key', 'keys');
    add('warn', `${what} among the leases cannot be read, such as ${peerSet.badKeys[0] ?? ''}`);
  }
  if (peerSet.keptCount > 0) {
    const who = plural(peerSet.keptCount, 'peer is', 'peers are');
    add('warn', `${who} kept although etcd has forgotten ${peerSet.keptCount === 1 ? 'it' : 'them'}`);
  }
  if (status.dockerHint !== null) add('warn', status.dockerHint);
  return list;
}

// Tiles

function tile(label: string, value: string, detail = '', tone: Tone = ''): HTMLElement {
  return html('div', { class: 'tile' }, [
    html('span', { class: 'soft' }, label),
    html('b', { class: tone }, value),
    html('span', { class: 'soft' }, detail),
  ]);
}

function leaseTiles({ lease }: DaemonStatus): readonly HTMLElement[] {
  if (lease === null) return [tile('Own subnet', 'none yet', '', 'warn'), tile('Lease', 'acquiring', '', 'warn')];
  const subnets = [lease.subnet, lease.ipv6Subnet].filter((subnet) => subnet !== null);
  const ends = lease.expiresInSeconds;
  const detail =
    lease.isReservation || ends === null
      ? 'reservation, never expires'
      : `${ends < 0 ? 'over since' : 'ends in'} ${span(ends)}, renewed ${lease.counters.renewals} times`;
  const isGood = lease.state === 'held' && lease.rivals.length === 0;
  return [
    tile('Own subnet', subnets.join(' '), `public address ${lease.publicIp}`),
    tile('Lease', lease.state, detail, isGood ? 'good' : 'bad'),
  ];
}

function kernelTile({ reconcile }: DaemonStatus): HTMLElement {
  const { conflicts, drift, isConverged } = reconcile;
  if (conflicts.length > 0) {
    const what = plural(conflicts.length, 'object is', 'objects are');
    return tile('Kernel', 'in conflict', `${what} in the way`, 'bad');
  }
  const reverted = sum(Object.values(drift));
  const detail = reverted > 0 ? `${plural(reverted, 'change', 'changes')} of others reverted` : 'nothing reverted';
  return tile('Kernel', isConverged ? 'as desired' : 'being changed', detail, isConverged ? 'good' : 'warn');
}

function firewallTile({ firewall }: DaemonStatus): HTMLElement {
  const mode = firewall?.mode ?? null;
  if (firewall === null || mode === null) return tile('Packet filter', 'no rules');
  const { isInPlace, lastError } = firewall;
  return tile('Packet filter', isInPlace ? 'in place' : 'incomplete', lastError ?? mode, isInPlace ? 'good' : 'bad');
}

function drawTiles(status: DaemonStatus): void {
  const { mtu, network, peers, peerSet, store, underlay } = status;
  const lost = peers.filter(isLost).length;
  const way = [mtu === null ? '' : `MTU ${mtu}`, underlay === null ? '' : `over ${underlay.device}`];
  const known = peerSet.isSynced ? 'as etcd says' : 'of an earlier run';
  const etcd = store.isConnected ? [store.endpoint ?? '', latency(store)] : [store.error ?? ''];
  const text = (parts: readonly string[]): string => parts.filter((part) => part !== '').join(', ');
  show('tiles', [
    ...leaseTiles(status),
    tile('Backend', network?.backend ?? 'unknown', text(way)),
    tile('Peers', String(peers.length), lost > 0 ? `${lost} not reached` : known, lost > 0 ? 'bad' : ''),
    tile('etcd', store.isConnected ? 'connected' : 'away', text(etcd), store.isConnected ? 'good' : 'bad'),
    kernelTile(status),
    firewallTile(status),
  ]);
}

// The picture of the hosts

function coloursOf({ backends, peers }: DaemonStatus): ReadonlyMap<string, number> {
  const names = [...new Set([...backends, ...peers.map(({ backend }) => backend)])];
  return new Map(names.map((name, index) => [name, index % COLOURS]));
}

function swatch(label: string, circle: Attributes): HTMLElement {
  return html('span', {}, [
    svg('svg', { viewBox: '0 0 10 10' }, svg('circle', { cx: 5, cy: 5, r: 4, ...circle })),
    label,
  ]);
}

function dotOf(peer: PeerStatus): Dot {
  const { backend, hostName, publicIp, skipped, subnet } = peer;
  const trouble = skipped !== null ? `\n${skipped.reason}` : isUnreachable(peer) ? '\ndoes not answer' : '';
  const name = hostName ?? '';
  return {
    backend,
    isLost: isLost(peer),
    subnet,
    label: name === '' ? subnet : (name.split('.')[0] ?? '').slice(0, 20),
    count: 1,
    bps: rateOf(peer),
    title: `${name === '' ? '' : `${name}\n`}${subnet}\n${publicIp}, ${backend}${trouble}`,
  };
}

/** One dot is one peer; with very many, one dot is a range of neighbouring subnets of one backend. */
function dotsOf({ peers }: DaemonStatus): readonly Dot[] {
  const dots = peers.map(dotOf);
  if (dots.length <= SINGLE) return dots;
  const size = Math.ceil(dots.length / GROUPS);
  const groups: Dot[] = [];
  const byBackend = (a: Dot, b: Dot): number => (a.backend < b.backend ? -1 : a.backend > b.backend ? 1 : 0);
  for (const dot of dots.sort((a, b) => Number(a.isLost) - Number(b.isLost) || byBackend(a, b))) {
    const open = groups.at(-1);
    if (open?.backend === dot.backend && open.isLost === dot.isLost && open.count < size) {
      open.count++;
      open.bps += dot.bps;
      open.title = `${open.count} peers\n${open.subnet} to ${dot.subnet}\n${dot.backend}`;
    } else {
      groups.push(dot);
    }
  }
  return groups;
}

/** Places around this host, in rings where they have no names, and the radius of the last ring. */
function placesOf(count: number): { readonly places: readonly (readonly [number, number])[]; readonly radius: number } {
  const isLabelled = count <= LABELLED;
  const places: [number, number][] = [];
  let radius = isLabelled ? 135 : 78;
  for (let left = count; left > 0; radius += isLabelled ? 0 : 15) {
    const room = isLabelled ? left : Math.min(left, Math.floor((2 * Math.PI * radius) / 15));
    // Two are beside each other; rings are turned so that their dots do not stand in lines.
    const turn = count <= 2 ? 0 : isLabelled ? -Math.PI / 2 : -Math.PI / 2 + radius;
    for (let i = 0; i < room; i++) {
      const angle = turn + (2 * Math.PI * i) / room;
      places.push([radius * Math.cos(angle), radius * Math.sin(angle)]);
    }
    left -= room;
  }
  return { places, radius };
}

function drawPicture(status: DaemonStatus): void {
  const { lease, peers } = status;
  const palette = coloursOf(status);
  const dots = dotsOf(status);
  const isLabelled = dots.length <= LABELLED;
  const { places, radius } = placesOf(dots.length);
  const half = dots.length <= 2 ? 70 : isLabelled ? 160 : Math.max(150, radius + 10);
  const wide = isLabelled ? (window.innerWidth < 512 ? 262 : 235) : half;
  const picture = svg('svg', {
    viewBox: [-wide, -half, 2 * wide, 2 * half].join(' '),
    role: 'img',
    'aria-label': `This host and ${plural(peers.length, 'peer', 'peers')}; the table below names them`,
  });
  const most = Math.max(1, ...dots.map(({ bps }) => bps));
  const least = dots.map(({ bps }) => bps).sort((a, b) => b - a)[LABELLED] ?? 0;
  const placed = dots.flatMap((dot, index) => {
    const place = places[index];
    return place === undefined ? [] : [{ dot, x: place[0], y: place[1], colour: palette.get(dot.backend) ?? 0 }];
  });
  for (const { dot, x, y, colour } of placed) {
    const { bps } = dot;
    const width = bps > least ? 1 + 4 * Math.sqrt(bps / most) : isLabelled ? 1 : 0;
    if (width === 0) continue;
    const look = bps > 0 ? { class: `s${colour}`, 'stroke-opacity': 0.55 } : { class: 'link', 'stroke-opacity': 1 };
    picture.append(svg('line', { x1: 0, y1: 0, x2: x, y2: y, 'stroke-width': width, ...look }));
  }
  for (const { dot, x, y, colour } of placed) {
    const r = isLabelled ? 7 : dot.count > 1 ? 6 : 4.5;
    const look = `node f${colour}${dot.isLost ? ' skip' : ''}`;
    picture.append(svg('circle', { cx: x, cy: y, r, class: look }, svg('title', {}, dot.title)));
    if (isLabelled) picture.append(label(dot.label, x, y));
  }
  picture.append(svg('circle', { cx: 0, cy: 0, r: 52, class: 'self' }));
  for (const [y, text] of [
    [-2, 'this host'],
    [13, lease?.subnet ?? 'no lease'],
  ] as const) {
    picture.append(svg('text', { x: 0, y, 'text-anchor': 'middle', class: 'selftext' }, text));
  }
  show('picture', picture);
  show('backends', legendOf(status, palette, dots));
}

/** The name of a dot, outside of it as seen from the middle. */
function label(text: string, x: number, y: number): SVGElement {
  if (x > 20) return svg('text', { x: x + 11, y: y + 4, 'text-anchor': 'start' }, text);
  if (x < -20) return svg('text', { x: x - 11, y: y + 4, 'text-anchor': 'end' }, text);
  return svg('text', { x, y: y + (y < 0 ? -12 : 20), 'text-anchor': 'middle' }, text);
}

function legendOf(
  { peers }: DaemonStatus,
  palette: ReadonlyMap<string, number>,
  dots: readonly Dot[],
): readonly HTMLElement[] {
  const lost = peers.filter(isLost).length;
  const legend = [...palette].flatMap(([name, colour]) => {
    const count = peers.filter(({ backend }) => backend === name).length;
    return count > 0 ? [swatch(`${name}: ${count}`, { class: `f${colour}` })] : [];
  });
  if (lost > 0) legend.push(swatch(`not reached: ${lost}`, { r: 3.5, class: 'node skip' }));
  const largest = Math.max(0, ...dots.map(({ count }) => count));
  if (largest > 1) legend.push(html('span', { class: 'soft' }, `a dot is up to ${largest} peers`));
  return legend;
}

// The charts

function drawPlot(id: string, title: string, series: readonly Series[], textOf: (value: number) => string): void {
  const [width, height, top, bottom] = [480, 140, 16, 17];
  const now = history.at(-1)?.at ?? 0;
  const shown = history.filter(({ at }) => now - at <= rangeMs);
  const lines = series.map(({ name, colour, of }) => {
    const points = shown.flatMap((entry) => {
      const value = of(entry);
      return value === null ? [] : [{ at: entry.at, value }];
    });
    const newest = points.at(-1);
    return { name, colour, points, newest: newest === undefined ? 'not known yet' : textOf(newest.value) };
  });
  const most = roundUp(Math.max(1, ...lines.flatMap(({ points }) => points.map(({ value }) => value))));
  const x = (at: number): number => width - ((now - at) / rangeMs) * width;
  const y = (value: number): number => height - bottom - (value / most) * (height - bottom - top);
  const texts = lines.map(({ name, newest }) => `${name} ${newest}`);
  const range = span(rangeMs / 1000);
  const plot = svg('svg', {
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': `${title} of the last ${range}${texts.length > 0 ? `; now ${texts.join(', ')}` : ''}`,
  });
  for (const part of [0, 0.5, 1]) {
    plot.append(svg('line', { class: 'grid', x1: 0, x2: width, y1: y(most * part), y2: y(most * part) }));
  }
  plot.append(
    svg('text', { x: 0, y: top - 3, class: 'soft' }, textOf(most)),
    svg('text', { x: 0, y: height - 3, class: 'soft' }, `${range} ago`),
    svg('text', { x: width, y: height - 3, class: 'soft', 'text-anchor': 'end' }, 'now'),
  );
  for (const { colour, points } of lines) {
    const [first] = points;
    if (points.length === 1 && first !== undefined) {
      plot.append(svg('circle', { cx: x(first.at), cy: y(first.value), r: 1.8, class: `f${colour}` }));
    }
    const way = points.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    plot.append(svg('polyline', { class: `curve s${colour}`, points: way }));
  }
  show(id, plot);
  const legend = lines.map(({ colour }, index) => swatch(texts[index] ?? '', { class: `f${colour}` }));
  show(`${id}-legend`, legend.length === 0 ? html('span', { class: 'soft' }, 'none') : legend);
}

function drawPlots(status: DaemonStatus): void {
  const packets = (value: number): string => short(value, 'pkt/s');
  const bits = (value: number): string => short(value, 'bit/s');
  const pair = (out: Series['of'], into: Series['of']): readonly Series[] => [
    { name: 'out', colour: 0, of: out },
    { name: 'in', colour: 1, of: into },
  ];
  const packetRates = pair(
    ({ txPps }) => txPps,
    ({ rxPps }) => rxPps,
  );
  const bitRates = pair(
    ({ txBps }) => txBps,
    ({ rxBps }) => rxBps,
  );
  drawPlot('packets', 'Packets', packetRates, packets);
  drawPlot('bits', 'Bits', bitRates, bits);
  const answers: Series = { name: 'answers in', colour: 4, of: ({ etcdMs }) => etcdMs };
  drawPlot('etcd', 'Time that etcd took to answer', [answers], millis);
  const drops = [...dropsOf(status)].filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const now = history.at(-1)?.at ?? 0;
  const shown = history.filter(({ at }) => now - at <= rangeMs);
  const recent = new Set(shown.flatMap((entry) => Object.keys(entry.drops)));
  const names = drops.map(([reason]) => reason).filter((reason) => recent.has(reason));
  const dropRates = names
    .slice(0, COLOURS)
    .map((name, colour): Series => ({ name, colour, of: (entry) => entry.drops[name] ?? 0 }));
  drawPlot('drops', 'Dropped packets', dropRates, packets);
  const totals = drops.map(([reason, count]) => `${reason} ${count.toLocaleString('en')}`);
  const text = totals.length === 0 ? 'No packet was dropped so far.' : `Since the start: ${totals.join(', ')}.`;
  show('drop-totals', text);
}

// Tunnels

function offloadChips({ counters, disabledOffloads, offloads }: TunnelStatus): readonly HTMLElement[] {
  const isDisabled = (name: string): boolean => disabledOffloads.some((each) => each === name);
  return Object.entries(offloads).map(([name, isOn]) => {
    const isRefused = Object.entries(counters.downgrades).some(([each, count]) => each === name && count > 0);
    const [tone, state] = isOn
      ? ['on', 'on']
      : isDisabled(name)
        ? ['off', 'switched off']
        : isRefused
          ? ['lost', 'refused by the kernel, tried again later']
          : ['off', 'off'];
    return html('span', { class: `chip ${tone}` }, `${name}: ${state}`);
  });
}

function drawTunnels({ tunnels }: DaemonStatus): void {
  byId('tunnel-section').hidden = tunnels.length === 0;
  const per = (packets: number, calls: number): string => (calls > 0 ? (packets / calls).toFixed(1) : '0');
  const panels = tunnels.map((tunnel) => {
    const { icmpSent, rxPackets, socketSends, tunWrites, txPackets, workerCpuSeconds } = tunnel.counters;
    const times = workerCpuSeconds.map((seconds) => `${seconds.toFixed(1)} s`).join(' and ');
    const icmp = Object.entries(icmpSent).flatMap(([name, count]) => (count > 0 ? [`${name} ${count}`] : []));
    const work = `${plural(tunnel.workers, 'worker', 'workers')} with ${times} of CPU time`;
    const batches = `${per(txPackets, socketSends)} packets per send, ${per(rxPackets, tunWrites)} per write`;
    return html('div', {}, [
      html('b', {}, tunnel.device),
      ` ${tunnel.kind}, ${work}, ${batches}`,
      html('div', { class: 'chips' }, offloadChips(tunnel)),
      html('div', { class: 'soft' }, icmp.length > 0 ? `ICMP errors sent: ${icmp.join(', ')}` : ''),
    ]);
  });
  show('tunnels', panels);
}

// The table of peers

const familyOf = (path: PathStatus, paths: readonly PathStatus[]): string =>
  paths.length > 1 ? `IPv${path.family}: ` : '';

function reachText(path: PathStatus): string {
  if (path.state === 'unknown') return 'not known yet';
  if (isSilent(path)) return 'no answer';
  const { answeredBy, loss, roundTripSeconds } = path;
  const time = roundTripSeconds === null ? 'answers' : millis(1000 * roundTripSeconds);
  const lost = loss !== null && loss > 0 ? `, ${Math.ceil(100 * loss)} % lost` : '';
  return time + lost + (answeredBy === 'underlay' ? ', the host itself' : '');
}

/** A line for each address family, with its name where there are two. */
function reachCell(paths: readonly PathStatus[]): HTMLElement {
  const tone = (path: PathStatus): string =>
    isSilent(path) ? 'bad' : path.state === 'unknown' ? 'soft' : (path.loss ?? 0) > 0 ? 'warn' : '';
  const lines = paths.map((path) => html('div', { class: tone(path) }, familyOf(path, paths) + reachText(path)));
  return html('td', {}, lines.length === 0 ? html('span', { class: 'soft' }, 'not probed') : lines);
}

/** What is wrong with a peer, a line each. */
function faultsOf({ reachability, skipped }: PeerStatus): readonly HTMLElement[] {
  const reason = skipped === null ? [] : [html('div', {}, `not reached: ${skipped.reason}; ${skipped.hint}`)];
  const silent = reachability.filter(isSilent).map((path) => {
    const { answeredBy, errno, since } = path;
    const alone = answeredBy === 'underlay' ? ', its host alone answers' : '';
    return html('div', {}, [
      `${familyOf(path, reachability)}no answer since `,
      instant(since ?? ''),
      alone + (errno === null ? '' : `, this host cannot send: ${errno}`),
    ]);
  });
  return [...reason, ...silent];
}

function rowsOf(peer: PeerStatus, isProbing: boolean, columns: number): readonly HTMLElement[] {
  const { backend, ipv6Subnet, publicIp, reachability, subnet, traffic } = peer;
  const name = peer.hostName ?? '';
  const faults = faultsOf(peer);
  const head = name === '' ? html('td', { class: 'soft' }, 'no name') : html('th', { scope: 'row' }, name);
  head.append(html('div', { class: 'slim soft' }, `${subnet} at ${publicIp}`));
  const row = html('tr', { class: faults.length > 0 ? 'joined' : '' }, [
    head,
    html('td', { class: 'wide' }, ipv6Subnet === null ? subnet : [subnet, html('br'), ipv6Subnet]),
    html('td', { class: 'wide' }, publicIp),
    html('td', { class: 'wide' }, backend),
    ...(isProbing ? [reachCell(reachability)] : []),
    html('td', { class: 'num' }, traffic === null ? '–' : short(rateOf(peer), 'bit/s')),
    html('td', { class: 'num wide' }, traffic === null ? '–' : short(traffic.txBytes, 'B')),
    html('td', { class: 'num wide' }, traffic === null ? '–' : short(traffic.rxBytes, 'B')),
  ]);
  if (faults.length === 0) return [row];
  return [row, html('tr', {}, html('td', { class: 'bad why', colspan: columns }, faults))];
}

function drawPeers({ peers, reachability }: DaemonStatus): void {
  const wanted = filter.value.trim().toLowerCase();
  filter.hidden = peers.length < 10;
  const found = peers.filter(({ backend, hostName, ipv6Subnet, publicIp, publicIpv6, subnet }) =>
    [hostName, subnet, ipv6Subnet, publicIp, publicIpv6, backend].join(' ').toLowerCase().includes(wanted),
  );
  const weight = (peer: PeerStatus): number => (isLost(peer) ? Number.MAX_VALUE : rateOf(peer));
  const shown = [...found].sort((a, b) => weight(b) - weight(a)).slice(0, TABLE_ROWS);
  const isProbing = reachability !== null;
  const columns: readonly (readonly [title: string, look: string])[] = [
    ['Host', ''],
    ['Subnet', 'wide'],
    ['Public address', 'wide'],
    ['Backend', 'wide'],
    ...(isProbing ? [['Round trip', ''] as const] : []),
    ['Rate', 'num'],
    ['Out', 'num wide'],
    ['In', 'num wide'],
  ];
  if (shown.length === 0) {
    show('peers', html('p', { class: 'soft' }, wanted === '' ? 'No other host has a lease.' : 'None matches.'));
  } else {
    const head = columns.map(([title, look]) => html('th', { scope: 'col', class: look }, title));
    const rows = shown.flatMap((peer) => rowsOf(peer, isProbing, columns.length));
    show('peers', html('table', {}, [html('thead', {}, html('tr', {}, head)), html('tbody', {}, rows)]));
  }
  const more = found.length - shown.length;
  byId('more').textContent =
    more > 0 ? `and ${more} more; those not reached and the busiest are shown, the filter finds the rest` : '';
}

// Problems

/** Lines of the log about what the list above shows as long as it lasts: without it they are over. */
const SHOWN_ABOVE = new RegExp(
  [
    '^(object of somebody else is|more objects of others are) in the way$',
    '^kernel state could not be changed',
    '^peers? cannot be reached$',
    '^peers (do not answer|cannot be probed)$',
    '^etcd (lost|still away)',
    '^network configuration (missing|not valid)$',
    '^containers need a restart',
    '^leases are not believed',
    '^entries among the leases',
    '^cannot carry the overlay',
  ].join('|'),
);

function logged({ at, detail, hint, level, message, resolvedAt }: Problem): HTMLElement {
  const end =
    resolvedAt === null || resolvedAt === at
      ? []
      : [html('span', { class: 'good' }, ' over since '), instant(resolvedAt)];
  return html('li', {}, [
    instant(at),
    ' ',
    html('span', { class: level === 'error' ? 'bad' : 'warn' }, message),
    ` ${detail}${hint === null ? '' : `; ${hint}`}`,
    ...end,
  ]);
}

function drawProblems({ problems }: DaemonStatus, troubles: readonly Trouble[]): void {
  const isOver = ({ message, resolvedAt }: Problem): boolean => resolvedAt !== null || SHOWN_ABOVE.test(message);
  const newest = [...problems].reverse();
  const over = newest.filter(isOver);
  const lines = [
    ...troubles.map(({ tone, text }) => html('li', { class: tone }, text)),
    ...newest.filter((problem) => !isOver(problem)).map(logged),
  ];
  show('problems', lines.length === 0 ? html('p', { class: 'soft' }, 'None now.') : html('ul', {}, lines));
  byId('over').hidden = over.length === 0;
  const what = plural(over.length, 'warning or error', 'warnings and errors');
  byId('over-title').textContent = `Earlier: ${what} of the log, over or shown above`;
  show('over-list', over.map(logged));
}

// The whole

function stateOf({ isReady, reconcile }: DaemonStatus, troubles: readonly Trouble[]): readonly [string, Tone] {
  if (!isReady) return ['not ready', 'bad'];
  if (reconcile.conflicts.length > 0) return ['conflict', 'bad'];
  return troubles.length > 0 ? ['degraded', 'warn'] : ['ready', 'good'];
}

function draw(status: DaemonStatus): void {
  const { hostName, notReadyBecause, uptimeSeconds, version } = status;
  const troubles = troublesOf(status);
  const [state, tone] = stateOf(status, troubles);
  document.title = `${state === 'ready' ? '' : `${state}: `}${hostName} – tsflannel`;
  byId('host').textContent = hostName;
  byId('about').textContent = `tsflannel ${version}, up ${span(uptimeSeconds)}`;
  const ready = byId('ready');
  if (ready.textContent !== state) ready.textContent = state;
  ready.className = `pill ${tone}`;
  byId('why').hidden = notReadyBecause.length === 0;
  show(
    'reasons',
    notReadyBecause.map((reason) => html('li', {}, reason)),
  );
  drawTiles(status);
  drawPicture(status);
  drawPlots(status);
  drawTunnels(status);
  drawPeers(status);
  drawProblems(status, troubles);
}

function drawAgain(): void {
  if (current !== undefined) draw(current);
}

async function ask(path: string): Promise<unknown> {
  const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`the daemon answered with ${response.status}`);
  return JSON.parse(await response.text(), plain);
}

async function askHistory(): Promise<void> {
  if (performance.now() - historyAskedMs < STEP_MS) return;
  historyAskedMs = performance.now();
  const newest = history.at(-1)?.at ?? 0;
  const { entries } = (await ask(`history?since=${newest}`)) as { readonly entries: readonly HistoryEntry[] };
  history = [...history.filter(({ at }) => newest - at <= HOUR_MS), ...entries];
}

async function poll(): Promise<void> {
  const away = byId('away');
  try {
    await askHistory();
    current = (await ask('status')) as DaemonStatus;
    rates = takeRates(current, performance.now());
    away.hidden = true;
    draw(current);
  } catch (error) {
    away.hidden = false;
    const reason = error instanceof Error ? error.message : String(error);
    away.textContent = `No answer from the daemon: ${reason}. What is shown is old.`;
  }
  if (!document.hidden) timer = setTimeout(() => void poll(), POLL_MS);
}

// Nobody asks the daemon for a page that nobody sees.
document.addEventListener('visibilitychange', () => {
  clearTimeout(timer);
  if (!document.hidden) void poll();
});
filter.addEventListener('input', drawAgain);
const ranges = document.querySelectorAll<HTMLButtonElement>('button[data-range]');
for (const button of ranges) {
  button.addEventListener('click', () => {
    rangeMs = Number(button.dataset['range']);
    for (const each of ranges) each.setAttribute('aria-pressed', String(each === button));
    drawAgain();
  });
}
await poll();
