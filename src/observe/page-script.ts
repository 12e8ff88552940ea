/**
 * Script of the status page: asks `/status` every two seconds, `/history` every five, and draws what has changed. Text reaches the document only through
 * `textContent` and attributes, never as HTML, because peers choose some of it.
 *
 * @internal
 */
export const PAGE_SCRIPT = String.raw`'use strict';
(function () {
  const POLL_MS = 2000, STEP_MS = 5000, HOUR_MS = 3600000, LABELLED = 24, SINGLE = 600, ROWS = 100, TEXT = 400;
  const SVG = 'http://www.w3.org/2000/svg';
  const byId = (id) => document.getElementById(id);
  let history = [], historyAskedMs = -STEP_MS, rangeMs = 300000, last = null, current = null, rates = new Map(), timer = 0;

  function make(ns, name, attributes, children) {
    const element = ns ? document.createElementNS(ns, name) : document.createElement(name);
    for (const key of Object.keys(attributes || {})) element.setAttribute(key, String(attributes[key]));
    for (const child of [].concat(children === undefined ? [] : children)) element.append(child);
    return element;
  }
  const html = (name, attributes, children) => make('', name, attributes, children);
  const svg = (name, attributes, children) => make(SVG, name, attributes, children);
  // What has not changed stays, and with it what somebody has selected in it.
  function show(id, children) {
    const next = [].concat(children), old = byId(id).childNodes;
    const isSame = (node, i) => (typeof node === 'string' ? old[i].nodeType === 3 && old[i].data === node : old[i].isEqualNode(node));
    if (next.length !== old.length || !next.every(isSame)) byId(id).replaceChildren(...next);
  }

  // Peers choose some of the texts: nothing in them reorders, breaks or floods what is shown.
  function plain(key, value) {
    if (typeof value !== 'string') return value;
    const text = value.length <= TEXT ? value : value.slice(0, TEXT) + '… (' + value.length + ' characters)';
    return text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
  }

  function short(value, unit) {
    const steps = ['', 'k', 'M', 'G', 'T'];
    let step = 0;
    while (value >= 1000 && step < steps.length - 1) { value /= 1000; step++; }
    const digits = value === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    return String(Number(value.toFixed(digits))) + ' ' + steps[step] + unit;
  }
  // The two largest units, rounded before they are split, so that none is ever full: never 23 h 60 min.
  function span(seconds) {
    const s = Math.round(Math.abs(seconds)), min = Math.round(s / 60), h = Math.round(s / 3600);
    const two = (large, unit, small, lesser) => large + ' ' + unit + (small > 0 ? ' ' + small + ' ' + lesser : '');
    if (s < 120) return s + ' s';
    if (min < 60) return min + ' min';
    if (min < 48 * 60) return two(Math.floor(min / 60), 'h', min % 60, 'min');
    return two(Math.floor(h / 24), 'd', h % 24, 'h');
  }
  function millis(ms) {
    return ms >= 1000 ? short(ms / 1000, 's') : ms.toFixed(ms >= 10 ? 0 : ms >= 1 ? 1 : 2) + ' ms';
  }
  // The one form of an instant: local, without the doubts about day and month of a locale.
  function instant(iso) {
    const at = new Date(iso), two = (value) => String(value).padStart(2, '0');
    if (isNaN(at)) return html('time', { class: 'soft' }, iso);
    const text = at.getFullYear() + '-' + two(at.getMonth() + 1) + '-' + two(at.getDate()) + ' ' + two(at.getHours()) + ':' + two(at.getMinutes()) + ':' + two(at.getSeconds());
    return html('time', { class: 'soft', datetime: at.toISOString(), title: at.toISOString() }, text);
  }
  function roundUp(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 3, 5, 10].find((step) => step * power >= value) * power;
  }
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  const plural = (count, one, many) => count + ' ' + (count === 1 ? one : many);

  function dropsOf(status) {
    const drops = {};
    const add = (reason, count) => { drops[reason] = (drops[reason] || 0) + count; };
    for (const tunnel of status.tunnels) for (const reason of Object.keys(tunnel.counters.drops)) add(reason, tunnel.counters.drops[reason]);
    for (const device of status.devices) {
      add('device out', device.txDropped + device.txErrors);
      add('device in', device.rxDropped + device.rxErrors);
    }
    return drops;
  }

  // Bits per second to and from each peer since the last answer of the same process.
  function ratesOf(status, at) {
    const bytes = new Map();
    for (const peer of status.peers) if (peer.traffic) bytes.set(peer.subnet, peer.traffic.txBytes + peer.traffic.rxBytes);
    const now = { at, pid: status.pid, bytes }, found = new Map();
    if (last && last.pid === now.pid && now.at > last.at) {
      for (const [subnet, count] of bytes) if (last.bytes.has(subnet)) found.set(subnet, Math.max(0, 8000 * (count - last.bytes.get(subnet)) / (now.at - last.at)));
    }
    last = now;
    return found;
  }

  function tile(label, value, detail, tone) {
    return html('div', { class: 'tile' }, [
      html('span', { class: 'soft' }, label),
      html('b', { class: tone || '' }, value),
      html('span', { class: 'soft' }, detail || ''),
    ]);
  }

  const isSilent = (path) => path.state === 'unreachable';
  const isUnreachable = (peer) => peer.reachability.some(isSilent);
  const isLost = (peer) => Boolean(peer.skipped) || isUnreachable(peer);

  function latency(store) {
    const recent = history.slice(-60).map((entry) => entry.etcdMs).filter((ms) => ms !== null);
    const answers = sum(store.counters.roundTripTimes.buckets);
    if (recent.length > 0) return 'answers in ' + millis(recent[recent.length - 1]);
    return answers > 0 ? 'answers in ' + millis(1000 * store.counters.roundTripTimes.sumSeconds / answers) : '';
  }

  function drawTiles(status) {
    const lease = status.lease, network = status.network, store = status.store, reconcile = status.reconcile, firewall = status.firewall;
    const lost = status.peers.filter(isLost).length;
    const drift = sum(Object.values(reconcile.drift));
    const tiles = [
      lease
        ? tile('Own subnet', [lease.subnet].concat(lease.ipv6Subnet || []).join(' '), 'public address ' + lease.publicIp)
        : tile('Own subnet', 'none yet', '', 'warn'),
      lease
        ? tile('Lease', lease.state, lease.isReservation ? 'reservation, never expires'
            : (lease.expiresInSeconds < 0 ? 'over since ' : 'ends in ') + span(lease.expiresInSeconds) + ', renewed ' + lease.counters.renewals + ' times',
            lease.state === 'held' && lease.rivals.length === 0 ? 'good' : 'bad')
        : tile('Lease', 'acquiring', '', 'warn'),
      tile('Backend', network ? network.backend : 'unknown', [status.mtu === null ? '' : 'MTU ' + status.mtu, status.underlay ? 'over ' + status.underlay.device : ''].filter(Boolean).join(', ')),
      tile('Peers', String(status.peers.length), lost > 0 ? lost + ' not reached' : status.peerSet.isSynced ? 'as etcd says' : 'of an earlier run', lost > 0 ? 'bad' : ''),
      tile('etcd', store.isConnected ? 'connected' : 'away', store.isConnected ? [store.endpoint, latency(store)].filter(Boolean).join(', ') : store.error || '', store.isConnected ? 'good' : 'bad'),
      reconcile.conflicts.length > 0
        ? tile('Kernel', 'in conflict', plural(reconcile.conflicts.length, 'object is', 'objects are') + ' in the way', 'bad')
        : tile('Kernel', reconcile.isConverged ? 'as desired' : 'being changed', drift > 0 ? plural(drift, 'change', 'changes') + ' of others reverted' : 'nothing reverted', reconcile.isConverged ? 'good' : 'warn'),
      tile('Packet filter', firewall && firewall.mode ? (firewall.isInPlace ? 'in place' : 'incomplete') : 'no rules',
        firewall && firewall.mode ? firewall.lastError || firewall.mode : '', firewall && firewall.mode ? (firewall.isInPlace ? 'good' : 'bad') : ''),
    ];
    show('tiles', tiles);
  }

  function colours(status) {
    const names = [...new Set(status.backends.concat(status.peers.map((peer) => peer.backend)))];
    return new Map(names.map((name, index) => [name, index % 8]));
  }
  function swatch(name, kind, index) {
    return html('span', {}, [svg('svg', { viewBox: '0 0 10 10' }, svg('circle', { cx: 5, cy: 5, r: 4, class: kind + index })), name]);
  }

  // One dot is one peer; with very many, one dot is a range of neighbouring subnets of one backend.
  function dotsOf(status) {
    const dots = status.peers.map((peer) => ({
      backend: peer.backend, isSkipped: isLost(peer), count: 1, bps: rates.get(peer.subnet) || 0, subnet: peer.subnet,
      label: peer.hostName ? peer.hostName.split('.')[0].slice(0, 20) : peer.subnet,
      title: (peer.hostName ? peer.hostName + '\n' : '') + peer.subnet + '\n' + peer.publicIp + ', ' + peer.backend + (peer.skipped ? '\n' + peer.skipped.reason : isUnreachable(peer) ? '\ndoes not answer' : ''),
    }));
    if (dots.length <= SINGLE) return dots;
    const size = Math.ceil(dots.length / 300);
    const groups = [];
    dots.sort((a, b) => a.isSkipped - b.isSkipped || (a.backend < b.backend ? -1 : a.backend > b.backend ? 1 : 0));
    for (const dot of dots) {
      const open = groups[groups.length - 1];
      if (open && open.count < size && open.backend === dot.backend && open.isSkipped === dot.isSkipped) {
        open.count++; open.bps += dot.bps; open.to = dot.subnet;
        open.title = open.count + ' peers\n' + open.subnet + ' to ' + open.to + '\n' + dot.backend;
      } else groups.push(Object.assign({}, dot));
    }
    return groups;
  }

  function drawPicture(status) {
    const palette = colours(status);
    const dots = dotsOf(status);
    const isLabelled = dots.length <= LABELLED;
    const isPair = dots.length <= 2; // beside each other
    const places = [];
    const step = isLabelled ? 0 : 15;
    let radius = isLabelled ? 135 : 78;
    for (let left = dots.length; left > 0; radius += step) {
      const room = isLabelled ? left : Math.min(left, Math.floor((2 * Math.PI * radius) / 15));
      const turn = -Math.PI / 2 + radius;
      for (let i = 0; i < room; i++) {
        const angle = (isPair ? 0 : isLabelled ? -Math.PI / 2 : turn) + (2 * Math.PI * i) / room;
        places.push([radius * Math.cos(angle), radius * Math.sin(angle)]);
      }
      left -= room;
    }
    const half = isPair ? 70 : isLabelled ? 160 : Math.max(150, radius + 10), wide = isLabelled ? (window.innerWidth < 512 ? 262 : 235) : half;
    const picture = svg('svg', { viewBox: [-wide, -half, 2 * wide, 2 * half].join(' '), role: 'img', 'aria-label': 'This host and ' + plural(status.peers.length, 'peer', 'peers') + '; the table below names them' });
    const most = Math.max(1, ...dots.map((dot) => dot.bps));
    const least = dots.map((dot) => dot.bps).sort((a, b) => b - a)[LABELLED] || 0;
    dots.forEach((dot, i) => {
      const width = dot.bps > least ? 1 + 4 * Math.sqrt(dot.bps / most) : isLabelled ? 1 : 0;
      if (width > 0) picture.append(svg('line', { x1: 0, y1: 0, x2: places[i][0], y2: places[i][1], 'stroke-width': width, class: dot.bps > 0 ? 's' + palette.get(dot.backend) : 'link', 'stroke-opacity': dot.bps > 0 ? 0.55 : 1 }));
    });
    dots.forEach((dot, i) => {
      const [x, y] = places[i];
      const size = isLabelled ? 7 : dot.count > 1 ? 6 : 4.5;
      const node = svg('circle', { cx: x, cy: y, r: size, class: 'node f' + palette.get(dot.backend) + (dot.isSkipped ? ' skip' : '') }, svg('title', {}, dot.title));
      picture.append(node);
      if (!isLabelled) return;
      const anchor = x > 20 ? 'start' : x < -20 ? 'end' : 'middle';
      picture.append(svg('text', { x: x + (anchor === 'start' ? 11 : anchor === 'end' ? -11 : 0), y: anchor === 'middle' ? y + (y < 0 ? -12 : 20) : y + 4, 'text-anchor': anchor }, dot.label));
    });
    picture.append(svg('circle', { cx: 0, cy: 0, r: 52, class: 'self' }));
    const own = status.lease ? status.lease.subnet : 'no lease';
    picture.append(svg('text', { x: 0, y: -2, 'text-anchor': 'middle', class: 'selftext' }, 'this host'));
    picture.append(svg('text', { x: 0, y: 13, 'text-anchor': 'middle', class: 'selftext' }, own));
    show('picture', picture);
    const skipped = status.peers.filter(isLost).length;
    const countOf = (name) => status.peers.filter((peer) => peer.backend === name).length;
    const legend = [...palette].filter(([name]) => countOf(name) > 0).map(([name, index]) => swatch(name + ': ' + countOf(name), 'f', index));
    if (skipped > 0) legend.push(html('span', {}, [svg('svg', { viewBox: '0 0 10 10' }, svg('circle', { cx: 5, cy: 5, r: 3.5, class: 'node skip' })), 'not reached: ' + skipped]));
    if (dots.some((dot) => dot.count > 1)) legend.push(html('span', { class: 'soft' }, 'a dot is up to ' + Math.max(...dots.map((dot) => dot.count)) + ' peers'));
    show('backends', legend);
  }

  function drawPlot(id, label, series, textOf) {
    const width = 480, height = 140, top = 16, bottom = 17;
    const now = history.length > 0 ? history[history.length - 1].at : 0;
    const shown = history.filter((entry) => now - entry.at <= rangeMs);
    const lines = series.map((one) => ({ name: one.name, colour: one.colour, points: shown.map((entry) => [entry.at, one.of(entry)]).filter((point) => point[1] !== null) }));
    const most = roundUp(Math.max(1, ...lines.flatMap((one) => one.points.map((point) => point[1]))));
    const x = (at) => width - ((now - at) / rangeMs) * width;
    const y = (value) => height - bottom - (value / most) * (height - bottom - top);
    const latest = (one) => (one.points.length > 0 ? textOf(one.points[one.points.length - 1][1]) : 'not known yet');
    const plot = svg('svg', { viewBox: '0 0 ' + width + ' ' + height, role: 'img', 'aria-label': label + ' of the last ' + span(rangeMs / 1000) + (lines.length > 0 ? '; now ' + lines.map((one) => one.name + ' ' + latest(one)).join(', ') : '') });
    for (const part of [0, 0.5, 1]) plot.append(svg('line', { class: 'grid', x1: 0, x2: width, y1: y(most * part), y2: y(most * part) }));
    plot.append(svg('text', { x: 0, y: top - 3, class: 'soft' }, textOf(most)));
    plot.append(svg('text', { x: 0, y: height - 3, class: 'soft' }, span(rangeMs / 1000) + ' ago'));
    plot.append(svg('text', { x: width, y: height - 3, class: 'soft', 'text-anchor': 'end' }, 'now'));
    for (const one of lines) {
      if (one.points.length === 1) plot.append(svg('circle', { cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 1.8, class: 'f' + one.colour }));
      plot.append(svg('polyline', { class: 'curve s' + one.colour, points: one.points.map((point) => x(point[0]).toFixed(1) + ',' + y(point[1]).toFixed(1)).join(' ') }));
    }
    show(id, plot);
    show(id + '-legend', lines.length === 0 ? html('span', { class: 'soft' }, 'none') : lines.map((one) => swatch(one.name + ' ' + latest(one), 'f', one.colour)));
  }

  function drawPlots(status) {
    const packets = (value) => short(value, 'pkt/s'), bits = (value) => short(value, 'bit/s');
    drawPlot('packets', 'Packets', [{ name: 'out', colour: 0, of: (entry) => entry.txPps }, { name: 'in', colour: 1, of: (entry) => entry.rxPps }], packets);
    drawPlot('bits', 'Bits', [{ name: 'out', colour: 0, of: (entry) => entry.txBps }, { name: 'in', colour: 1, of: (entry) => entry.rxBps }], bits);
    drawPlot('etcd', 'Time that etcd took to answer', [{ name: 'answers in', colour: 4, of: (entry) => entry.etcdMs }], millis);
    const counts = dropsOf(status);
    const reasons = Object.keys(counts).filter((reason) => counts[reason] > 0);
    const newest = history.length > 0 ? history[history.length - 1].at : 0;
    const recent = new Set(history.filter((entry) => newest - entry.at <= rangeMs).flatMap((entry) => Object.keys(entry.drops)));
    const shown = reasons.sort((a, b) => counts[b] - counts[a]).filter((reason) => recent.has(reason)).slice(0, 8);
    drawPlot('drops', 'Dropped packets', shown.map((name, colour) => ({ name, colour, of: (entry) => entry.drops[name] || 0 })), packets);
    show('drop-totals', reasons.length === 0 ? 'No packet was dropped so far.' : 'Since the start: ' + reasons.map((reason) => reason + ' ' + counts[reason].toLocaleString('en')).join(', ') + '.');
  }

  function drawTunnels(status) {
    byId('tunnel-section').hidden = status.tunnels.length === 0;
    show('tunnels', status.tunnels.map((tunnel) => {
      const chips = Object.keys(tunnel.offloads).map((name) => {
        const lost = tunnel.counters.downgrades[name] || 0;
        const why = tunnel.offloads[name] ? 'on' : tunnel.disabledOffloads.includes(name) ? 'switched off' : lost > 0 ? 'refused by the kernel, tried again later' : 'off';
        const tone = tunnel.offloads[name] ? 'on' : why.startsWith('refused') ? 'lost' : 'off';
        return html('span', { class: 'chip ' + tone }, name + ': ' + why);
      });
      const c = tunnel.counters;
      const per = (packets, calls) => (calls > 0 ? (packets / calls).toFixed(1) : '0');
      const icmp = Object.keys(c.icmpSent).filter((name) => c.icmpSent[name] > 0).map((name) => name + ' ' + c.icmpSent[name]);
      return html('div', {}, [
        html('b', {}, tunnel.device), ' ' + tunnel.kind + ', ' + tunnel.workers + (tunnel.workers === 1 ? ' worker' : ' workers') + ' with ' + c.workerCpuSeconds.map((s) => s.toFixed(1) + ' s').join(' and ') + ' of CPU time, ' + per(c.txPackets, c.socketSends) + ' packets per send, ' + per(c.rxPackets, c.tunWrites) + ' per write',
        html('div', { class: 'chips' }, chips),
        html('div', { class: 'soft' }, icmp.length > 0 ? 'ICMP errors sent: ' + icmp.join(', ') : ''),
      ]);
    }));
  }

  // A line for each address family, with its name where there are two.
  function reachCell(paths) {
    const tone = (path) => (isSilent(path) ? 'bad' : path.state === 'unknown' ? 'soft' : path.loss > 0 ? 'warn' : '');
    const line = (path) => html('div', { class: tone(path) }, familyOf(path, paths) + reachText(path));
    return html('td', {}, paths.length === 0 ? html('span', { class: 'soft' }, 'not probed') : paths.map(line));
  }
  const familyOf = (path, paths) => (paths.length > 1 ? 'IPv' + path.family + ': ' : '');
  function reachText(path) {
    if (path.state === 'unknown') return 'not known yet';
    if (isSilent(path)) return 'no answer';
    const time = path.roundTripSeconds === null ? 'answers' : millis(1000 * path.roundTripSeconds);
    return time + (path.loss > 0 ? ', ' + Math.ceil(100 * path.loss) + ' % lost' : '') + (path.answeredBy === 'underlay' ? ', the host itself' : '');
  }

  // What is wrong with a peer, a line each.
  function faultsOf(peer) {
    const silent = peer.reachability.filter(isSilent).map((path) => [
      familyOf(path, peer.reachability) + 'no answer since ', instant(path.since),
      (path.answeredBy === 'underlay' ? ', its host alone answers' : '') + (path.errno ? ', this host cannot send: ' + path.errno : ''),
    ]);
    return (peer.skipped ? [['not reached: ' + peer.skipped.reason + '; ' + peer.skipped.hint]] : []).concat(silent).map((fault) => html('div', {}, fault));
  }

  function drawPeers(status) {
    const wanted = byId('filter').value.trim().toLowerCase();
    const found = status.peers.filter((peer) => [peer.hostName, peer.subnet, peer.ipv6Subnet, peer.publicIp, peer.publicIpv6, peer.backend].join(' ').toLowerCase().includes(wanted));
    const weight = (peer) => (isLost(peer) ? Number.MAX_VALUE : rates.get(peer.subnet) || 0);
    const rows = found.slice().sort((a, b) => weight(b) - weight(a)).slice(0, ROWS);
    const isProbing = status.reachability !== null;
    byId('filter').hidden = status.peers.length < 10;
    const columns = [['Host'], ['Subnet', 'wide'], ['Public address', 'wide'], ['Backend', 'wide']].concat(isProbing ? [['Round trip']] : [], [['Rate', 'num'], ['Out', 'num wide'], ['In', 'num wide']]);
    const head = html('tr', {}, columns.map((column) => html('th', { scope: 'col', class: column[1] || '' }, column[0])));
    show('peers', rows.length === 0 ? html('p', { class: 'soft' }, wanted ? 'None matches.' : 'No other host has a lease.') : html('table', {}, [html('thead', {}, head), html('tbody', {}, rows.flatMap((peer) => {
      const traffic = peer.traffic, faults = faultsOf(peer);
      const row = html('tr', { class: faults.length > 0 ? 'joined' : '' }, [
        html(peer.hostName ? 'th' : 'td', peer.hostName ? { scope: 'row' } : { class: 'soft' }, [peer.hostName || 'no name', html('div', { class: 'slim soft' }, peer.subnet + ' at ' + peer.publicIp)]),
        html('td', { class: 'wide' }, [peer.subnet].concat(peer.ipv6Subnet ? [html('br'), peer.ipv6Subnet] : [])),
        html('td', { class: 'wide' }, peer.publicIp), html('td', { class: 'wide' }, peer.backend),
      ].concat(isProbing ? reachCell(peer.reachability) : [], [
        html('td', { class: 'num' }, traffic ? short(rates.get(peer.subnet) || 0, 'bit/s') : '–'),
        html('td', { class: 'num wide' }, traffic ? short(traffic.txBytes, 'B') : '–'),
        html('td', { class: 'num wide' }, traffic ? short(traffic.rxBytes, 'B') : '–'),
      ]));
      return faults.length > 0 ? [row, html('tr', {}, html('td', { class: 'bad why', colspan: columns.length }, faults))] : [row];
    }))]));
    const more = found.length - rows.length;
    byId('more').textContent = more > 0 ? 'and ' + more + ' more; those not reached and the busiest are shown, the filter finds the rest' : '';
  }

  // What is wrong at this moment, as the status has it.
  function troubles(status) {
    const list = [], add = (tone, text) => list.push({ tone, text });
    const lease = status.lease, set = status.peerSet, count = (values) => sum(Object.values(values));
    for (const conflict of status.reconcile.conflicts) add('bad', 'In the way: ' + conflict);
    for (const failure of status.reconcile.failures) add('bad', 'Refused by the kernel: ' + failure.object + ': ' + failure.error);
    if (!status.store.isConnected) add('bad', 'etcd is away: ' + (status.store.error || 'it has not answered yet'));
    if (status.subnetFile.error) add('bad', status.subnetFile.error);
    if (status.network && status.network.rejected) add('bad', 'The configuration in etcd is not used: ' + status.network.rejected);
    if (status.firewall && status.firewall.mode && !status.firewall.isInPlace) add('bad', 'Rules of the packet filter are missing' + (status.firewall.lastError ? ': ' + status.firewall.lastError : ''));
    if (lease && lease.rivals.length > 0) add('bad', 'Other leases name addresses of the own one: ' + lease.rivals.slice(0, 3).join(', ') + (lease.rivals.length > 3 ? ' and ' + (lease.rivals.length - 3) + ' more' : ''));
    const skipped = status.peers.filter((peer) => peer.skipped).length, silent = status.peers.filter((peer) => !peer.skipped && isUnreachable(peer)).length;
    if (skipped > 0) add('bad', plural(skipped, 'peer is', 'peers are') + ' not reached; the table says why');
    if (silent > 0) add('bad', plural(silent, 'peer does', 'peers do') + ' not answer through the overlay; tsflannelctl ping says how far packets come');
    if (status.reachability && status.reachability.error) add('warn', 'Peers are not probed: ' + status.reachability.error);
    if (count(set.quarantinedCounts) > 0) add('warn', plural(count(set.quarantinedCounts), 'lease is', 'leases are') + ' not believed, such as ' + set.quarantined.slice(0, 1).map((each) => each.key + ': ' + each.detail).join());
    if (set.badKeyCount > 0) add('warn', plural(set.badKeyCount, 'key', 'keys') + ' among the leases cannot be read, such as ' + set.badKeys[0]);
    if (set.keptCount > 0) add('warn', plural(set.keptCount, 'peer is', 'peers are') + ' kept although etcd has forgotten ' + (set.keptCount === 1 ? 'it' : 'them'));
    if (status.dockerHint) add('warn', status.dockerHint);
    return list;
  }

  // Lines of the log about what the list above shows as long as it lasts: without it they are over.
  const SHOWN_ABOVE = /^(object of somebody else is|more objects of others are) in the way$|^kernel state could not be changed|^peers? cannot be reached$|^peers (do not answer|cannot be probed)$|^etcd (lost|still away)|^network configuration (missing|not valid)$|^containers need a restart|^leases are not believed|^entries among the leases|^cannot carry the overlay/;

  function logged(problem) {
    return html('li', {}, [
      instant(problem.at), ' ', html('span', { class: problem.level === 'error' ? 'bad' : 'warn' }, problem.message),
      ' ' + problem.detail + (problem.hint ? '; ' + problem.hint : ''),
    ].concat(problem.resolvedAt && problem.resolvedAt !== problem.at ? [html('span', { class: 'good' }, ' over since '), instant(problem.resolvedAt)] : []));
  }

  function drawProblems(status, now) {
    const isOver = (problem) => Boolean(problem.resolvedAt) || SHOWN_ABOVE.test(problem.message);
    const newest = status.problems.slice().reverse(), open = newest.filter((problem) => !isOver(problem)), over = newest.filter(isOver);
    const lines = now.map((trouble) => html('li', { class: trouble.tone }, trouble.text)).concat(open.map(logged));
    show('problems', lines.length === 0 ? html('p', { class: 'soft' }, 'None now.') : html('ul', {}, lines));
    byId('over').hidden = over.length === 0;
    byId('over-title').textContent = 'Earlier: ' + plural(over.length, 'warning or error', 'warnings and errors') + ' of the log, over or shown above';
    show('over-list', over.map(logged));
  }

  function draw(status) {
    const now = troubles(status);
    const state = !status.isReady ? ['not ready', 'bad'] : status.reconcile.conflicts.length > 0 ? ['conflict', 'bad'] : now.length > 0 ? ['degraded', 'warn'] : ['ready', 'good'];
    document.title = (state[0] === 'ready' ? '' : state[0] + ': ') + status.hostName + ' – tsflannel';
    byId('host').textContent = status.hostName;
    byId('about').textContent = 'tsflannel ' + status.version + ', up ' + span(status.uptimeSeconds);
    const ready = byId('ready');
    if (ready.textContent !== state[0]) ready.textContent = state[0];
    ready.className = 'pill ' + state[1];
    byId('why').hidden = status.notReadyBecause.length === 0;
    show('reasons', status.notReadyBecause.map((reason) => html('li', {}, reason)));
    drawTiles(status);
    drawPicture(status);
    drawPlots(status);
    drawTunnels(status);
    drawPeers(status);
    drawProblems(status, now);
  }

  async function ask(path) {
    const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error('the daemon answered with ' + response.status);
    return JSON.parse(await response.text(), plain);
  }

  async function askHistory() {
    if (performance.now() - historyAskedMs < STEP_MS) return;
    historyAskedMs = performance.now();
    const newest = history.length > 0 ? history[history.length - 1].at : 0;
    const entries = (await ask('history?since=' + newest)).entries;
    const isOurs = (entry) => newest - entry.at <= HOUR_MS;
    history = history.filter(isOurs).concat(entries);
  }

  async function poll() {
    try {
      await askHistory();
      current = await ask('status');
      rates = ratesOf(current, performance.now());
      byId('away').hidden = true;
      draw(current);
    } catch (error) {
      byId('away').hidden = false;
      byId('away').textContent = 'No answer from the daemon: ' + error.message + '. What is shown is old.';
    }
    if (!document.hidden) timer = setTimeout(poll, POLL_MS);
  }

  // Nobody asks the daemon for a page that nobody sees.
  document.addEventListener('visibilitychange', () => { clearTimeout(timer); if (!document.hidden) poll(); });
  byId('filter').addEventListener('input', () => { if (current) draw(current); });
  for (const button of document.querySelectorAll('button[data-range]')) {
    button.addEventListener('click', () => {
      rangeMs = Number(button.dataset.range);
      for (const each of document.querySelectorAll('button[data-range]')) each.setAttribute('aria-pressed', String(each === button));
      if (current) draw(current);
    });
  }
  poll();
})();
`;
