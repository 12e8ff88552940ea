/**
 * Script of the status page: asks `/status` every two seconds and draws it. Text reaches the document only through
 * `textContent` and attributes, never as HTML, because peers choose some of it.
 *
 * @internal
 */
export const PAGE_SCRIPT = String.raw`'use strict';
(function () {
  const POLL_MS = 2000, HISTORY = 90, LABELLED = 24, SINGLE = 600, ROWS = 100, TEXT = 400;
  const SVG = 'http://www.w3.org/2000/svg';
  const byId = (id) => document.getElementById(id);
  const history = [];
  let last = null, current = null;

  function make(ns, name, attributes, children) {
    const element = ns ? document.createElementNS(ns, name) : document.createElement(name);
    for (const key of Object.keys(attributes || {})) element.setAttribute(key, String(attributes[key]));
    for (const child of [].concat(children === undefined ? [] : children)) element.append(child);
    return element;
  }
  const html = (name, attributes, children) => make('', name, attributes, children);
  const svg = (name, attributes, children) => make(SVG, name, attributes, children);
  const show = (id, children) => byId(id).replaceChildren(...[].concat(children));

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
  function span(seconds) {
    const s = Math.round(Math.abs(seconds));
    if (s < 120) return s + ' s';
    if (s < 7200) return Math.round(s / 60) + ' min';
    if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.round((s % 3600) / 60) + ' min';
    return Math.round(s / 86400) + ' d';
  }
  function roundUp(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 3, 5, 10].find((step) => step * power >= value) * power;
  }
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  function totals(status) {
    const carriers = status.devices.length > 0 ? status.devices : status.tunnels.map((tunnel) => tunnel.counters);
    const drops = {};
    const add = (reason, count) => { drops[reason] = (drops[reason] || 0) + count; };
    for (const tunnel of status.tunnels) for (const reason of Object.keys(tunnel.counters.drops)) add(reason, tunnel.counters.drops[reason]);
    for (const device of status.devices) {
      add('device out', device.txDropped + device.txErrors);
      add('device in', device.rxDropped + device.rxErrors);
    }
    const peers = new Map();
    for (const peer of status.peers) if (peer.traffic) peers.set(peer.subnet, peer.traffic.txBytes + peer.traffic.rxBytes);
    return {
      at: performance.now(), pid: status.pid, peers, drops,
      txPackets: sum(carriers.map((c) => c.txPackets)), rxPackets: sum(carriers.map((c) => c.rxPackets)),
      txBytes: sum(carriers.map((c) => c.txBytes)), rxBytes: sum(carriers.map((c) => c.rxBytes)),
    };
  }

  function difference(now, before) {
    const seconds = (now.at - before.at) / 1000;
    // A counter that went back belongs to a device or daemon that was made anew.
    const rate = (a, b) => (a >= b ? (a - b) / seconds : 0);
    const drops = {};
    for (const reason of Object.keys(now.drops)) drops[reason] = rate(now.drops[reason], before.drops[reason] || 0);
    const peers = new Map();
    for (const [subnet, bytes] of now.peers) if (before.peers.has(subnet)) peers.set(subnet, 8 * rate(bytes, before.peers.get(subnet)));
    return {
      at: now.at, drops, peers,
      txPps: rate(now.txPackets, before.txPackets), rxPps: rate(now.rxPackets, before.rxPackets),
      txBps: 8 * rate(now.txBytes, before.txBytes), rxBps: 8 * rate(now.rxBytes, before.rxBytes),
    };
  }

  function tile(label, value, detail, tone) {
    return html('div', { class: 'tile' }, [
      html('span', { class: 'soft' }, label),
      html('b', { class: tone || '' }, value),
      html('span', { class: 'soft' }, detail || ''),
    ]);
  }

  function drawTiles(status) {
    const lease = status.lease, network = status.network, store = status.store, reconcile = status.reconcile, firewall = status.firewall;
    const skipped = status.peers.filter((peer) => peer.skipped).length;
    const drift = sum(Object.values(reconcile.drift));
    const tiles = [
      lease
        ? tile('Own subnet', [lease.subnet].concat(lease.ipv6Subnet || []).join(' '), 'public address ' + lease.publicIp)
        : tile('Own subnet', 'none yet', '', 'warn'),
      lease
        ? tile('Lease', lease.state, lease.isReservation ? 'reservation, never expires'
            : (lease.expiresInSeconds < 0 ? 'over since ' : 'ends in ') + span(lease.expiresInSeconds) + ', renewed ' + lease.counters.renewals + ' times',
            lease.state === 'held' ? 'good' : 'bad')
        : tile('Lease', 'acquiring', '', 'warn'),
      tile('Backend', network ? network.backend : 'unknown', [status.mtu === null ? '' : 'MTU ' + status.mtu, status.underlay ? 'over ' + status.underlay.device : ''].filter(Boolean).join(', ')),
      tile('Peers', String(status.peers.length), skipped > 0 ? skipped + ' not reached' : status.peerSet.isSynced ? 'as etcd says' : 'of an earlier run', skipped > 0 ? 'bad' : ''),
      tile('etcd', store.isConnected ? 'connected' : 'away', store.isConnected ? store.endpoint || '' : store.error || '', store.isConnected ? 'good' : 'bad'),
      tile('Kernel', reconcile.isConverged ? 'as desired' : 'being changed', drift > 0 ? drift + ' changes of others reverted' : 'nothing reverted', reconcile.isConverged ? 'good' : 'warn'),
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
  function dotsOf(status, rates) {
    const dots = status.peers.map((peer) => ({
      backend: peer.backend, isSkipped: peer.skipped !== null, count: 1, bps: rates.get(peer.subnet) || 0, label: peer.subnet,
      title: peer.subnet + '\n' + peer.publicIp + ', ' + peer.backend + (peer.skipped ? '\n' + peer.skipped.reason : ''),
    }));
    if (dots.length <= SINGLE) return dots;
    const size = Math.ceil(dots.length / 300);
    const groups = [];
    dots.sort((a, b) => a.isSkipped - b.isSkipped || (a.backend < b.backend ? -1 : a.backend > b.backend ? 1 : 0));
    for (const dot of dots) {
      const open = groups[groups.length - 1];
      if (open && open.count < size && open.backend === dot.backend && open.isSkipped === dot.isSkipped) {
        open.count++; open.bps += dot.bps; open.to = dot.label;
        open.title = open.count + ' peers\n' + open.label + ' to ' + open.to + '\n' + dot.backend;
      } else groups.push(Object.assign({}, dot));
    }
    return groups;
  }

  function drawPicture(status, rates) {
    const palette = colours(status);
    const dots = dotsOf(status, rates);
    const isLabelled = dots.length <= LABELLED;
    const places = [];
    const step = isLabelled ? 0 : 15;
    let radius = isLabelled ? 135 : 78;
    for (let left = dots.length; left > 0; radius += step) {
      const room = isLabelled ? left : Math.min(left, Math.floor((2 * Math.PI * radius) / 15));
      const turn = -Math.PI / 2 + radius;
      for (let i = 0; i < room; i++) {
        const angle = (isLabelled ? -Math.PI / 2 : turn) + (2 * Math.PI * i) / room;
        places.push([radius * Math.cos(angle), radius * Math.sin(angle)]);
      }
      left -= room;
    }
    const half = isLabelled ? 160 : Math.max(150, radius + 10), wide = isLabelled ? (window.innerWidth < 512 ? 262 : 235) : half;
    const picture = svg('svg', { viewBox: [-wide, -half, 2 * wide, 2 * half].join(' '), role: 'img', 'aria-label': 'this host and its peers' });
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
    const skipped = status.peers.filter((peer) => peer.skipped).length;
    const legend = [...palette].map(([name, index]) => swatch(name + ': ' + status.peers.filter((peer) => peer.backend === name).length, 'f', index));
    if (skipped > 0) legend.push(html('span', {}, [svg('svg', { viewBox: '0 0 10 10' }, svg('circle', { cx: 5, cy: 5, r: 3.5, class: 'node skip' })), 'not reached: ' + skipped]));
    if (dots.some((dot) => dot.count > 1)) legend.push(html('span', { class: 'soft' }, 'a dot is up to ' + Math.max(...dots.map((dot) => dot.count)) + ' peers'));
    show('backends', legend);
  }

  function drawPlot(id, series, unit) {
    const width = 480, height = 140, left = 0, top = 16, bottom = 17;
    const most = roundUp(Math.max(1, ...series.flatMap((one) => one.values)));
    const now = history.length > 0 ? history[history.length - 1].at : 0, length = (HISTORY - 1) * POLL_MS;
    const x = (at) => width - ((now - at) / length) * (width - left);
    const y = (value) => height - bottom - (value / most) * (height - bottom - top);
    const plot = svg('svg', { viewBox: '0 0 ' + width + ' ' + height, role: 'img', 'aria-label': id });
    for (const part of [0, 0.5, 1]) plot.append(svg('line', { class: 'grid', x1: left, x2: width, y1: y(most * part), y2: y(most * part) }));
    plot.append(svg('text', { x: left, y: top - 3, class: 'soft' }, short(most, unit)));
    plot.append(svg('text', { x: left, y: height - 3, class: 'soft' }, span(length / 1000) + ' ago'));
    plot.append(svg('text', { x: width, y: height - 3, class: 'soft', 'text-anchor': 'end' }, 'now'));
    for (const one of series) {
      const points = one.values.map((value, i) => x(history[i].at).toFixed(1) + ',' + y(value).toFixed(1)).join(' ');
      plot.append(svg('polyline', { class: 'curve s' + one.colour, points }));
    }
    show(id, plot);
    show(id + '-legend', series.length === 0 ? html('span', { class: 'soft' }, 'none') : series.map((one) => swatch(one.name + ' ' + short(one.values[one.values.length - 1] || 0, unit), 'f', one.colour)));
  }

  function drawPlots(status) {
    const of = (key) => history.map((entry) => entry[key]);
    drawPlot('packets', [{ name: 'out', colour: 0, values: of('txPps') }, { name: 'in', colour: 1, values: of('rxPps') }], 'pkt/s');
    drawPlot('bits', [{ name: 'out', colour: 0, values: of('txBps') }, { name: 'in', colour: 1, values: of('rxBps') }], 'bit/s');
    const counts = totals(status).drops;
    const reasons = Object.keys(counts).filter((reason) => counts[reason] > 0);
    const shown = reasons.sort((a, b) => counts[b] - counts[a]).slice(0, 8);
    drawPlot('drops', shown.map((name, colour) => ({ name, colour, values: history.map((entry) => entry.drops[name] || 0) })), 'pkt/s');
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

  function drawPeers(status, rates) {
    const wanted = byId('filter').value.trim().toLowerCase();
    const found = status.peers.filter((peer) => [peer.subnet, peer.ipv6Subnet, peer.publicIp, peer.publicIpv6, peer.backend].join(' ').toLowerCase().includes(wanted));
    const weight = (peer) => (peer.skipped ? Number.MAX_VALUE : rates.get(peer.subnet) || 0);
    const rows = found.slice().sort((a, b) => weight(b) - weight(a)).slice(0, ROWS);
    byId('filter').hidden = status.peers.length < 10;
    const head = html('tr', {}, [html('th', {}, 'Subnet'), html('th', {}, 'Public address'), html('th', {}, 'Backend'), html('th', { class: 'num' }, 'Rate'), html('th', { class: 'num wide' }, 'Out'), html('th', { class: 'num wide' }, 'In')]);
    show('peers', rows.length === 0 ? html('p', { class: 'soft' }, wanted ? 'None matches.' : 'No other host has a lease.') : html('table', {}, [html('thead', {}, head), html('tbody', {}, rows.map((peer) => {
      const traffic = peer.traffic;
      const subnet = html('td', {}, [peer.subnet].concat(peer.ipv6Subnet ? [html('br'), peer.ipv6Subnet] : []));
      if (peer.skipped) subnet.append(html('div', { class: 'bad' }, peer.skipped.reason + '; ' + peer.skipped.hint));
      return html('tr', {}, [
        subnet, html('td', {}, peer.publicIp), html('td', {}, peer.backend),
        html('td', { class: 'num' }, traffic ? short(rates.get(peer.subnet) || 0, 'bit/s') : '–'),
        html('td', { class: 'num wide' }, traffic ? short(traffic.txBytes, 'B') : '–'),
        html('td', { class: 'num wide' }, traffic ? short(traffic.rxBytes, 'B') : '–'),
      ]);
    }))]));
    byId('more').textContent = found.length > rows.length ? 'and ' + (found.length - rows.length) + ' more; the busiest are shown, the filter finds the rest' : '';
  }

  function drawProblems(status) {
    const lines = status.reconcile.conflicts.concat(
      status.reconcile.failures.map((failure) => failure.object + ': ' + failure.error),
      [status.subnetFile.error, status.network && status.network.rejected, status.dockerHint].filter(Boolean),
    ).map((text) => html('li', { class: 'bad' }, text));
    const logged = status.problems.slice(-20).reverse().map((problem) => html('li', {}, [
      html('span', { class: 'soft' }, new Date(problem.at).toLocaleTimeString() + ' '),
      html('span', { class: problem.level === 'error' ? 'bad' : 'warn' }, problem.message),
      ' ' + problem.detail + (problem.hint ? '; ' + problem.hint : ''),
    ]));
    const all = lines.concat(logged);
    show('problems', all.length === 0 ? html('p', { class: 'soft' }, 'None since the start.') : html('ul', {}, all));
  }

  function draw(status) {
    const rates = history.length > 0 ? history[history.length - 1].peers : new Map();
    document.title = status.hostName + ' – tsflannel';
    byId('host').textContent = status.hostName;
    byId('about').textContent = 'tsflannel ' + status.version + ', up ' + span(status.uptimeSeconds);
    const ready = byId('ready');
    ready.textContent = status.isReady ? 'ready' : 'not ready';
    ready.className = 'pill ' + (status.isReady ? 'good' : 'bad');
    byId('why').hidden = status.notReadyBecause.length === 0;
    show('reasons', status.notReadyBecause.map((reason) => html('li', {}, reason)));
    drawTiles(status);
    drawPicture(status, rates);
    drawPlots(status);
    drawTunnels(status);
    drawPeers(status, rates);
    drawProblems(status);
  }

  async function poll() {
    try {
      const response = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (!response.ok) throw new Error('the daemon answered with ' + response.status);
      current = JSON.parse(await response.text(), plain);
      const now = totals(current);
      if (last && last.pid === now.pid) history.push(difference(now, last));
      if (history.length > HISTORY) history.shift();
      last = now;
      byId('away').hidden = true;
      draw(current);
    } catch (error) {
      byId('away').hidden = false;
      byId('away').textContent = 'No answer from the daemon: ' + error.message + '. What is shown is old.';
    }
    setTimeout(poll, POLL_MS);
  }

  byId('filter').addEventListener('input', () => { if (current) draw(current); });
  poll();
})();
`;
