import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { PAGE_STYLE } from './page-style.js';

/** The status page at `/`: one document that needs nothing but `/status` and `/history`. */
export interface Page {
  readonly document: string;
  /**
   * Its Content-Security-Policy: its own style and script by their digest, data from the same server, nothing else, so
   * that no text a peer chose can become code.
   */
  readonly policy: string;
}

/** The page with a script in it, which is a module. */
export function statusPage(script: string): Page {
  const policy = [
    "default-src 'none'",
    `script-src ${digest(script)}`,
    `style-src ${digest(PAGE_STYLE)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return { document: `${HEAD}<script type="module">${script}</script>\n</body>\n</html>\n`, policy: policy.join('; ') };
}

/** The script of the page, which the build compiles into the folder beside this file; a source tree has none. */
export function readPageScript(): string {
  return readFileSync(new URL('../observe/page/script.js', import.meta.url), 'utf8');
}

const HEAD = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>tsflannel</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<header><h1 id="host">…</h1><span id="ready" class="pill" role="status"></span><span id="about" class="soft"></span></header>
<main>
<section id="away" class="alarm bad" role="alert" hidden></section>
<section id="why" class="alarm" hidden><h2>Not ready because</h2><ul id="reasons"></ul></section>
<section><h2 class="unseen">Overview</h2><div id="tiles" class="tiles"></div></section>
<section class="half"><h2>Problems</h2><div id="problems"></div><details id="over" hidden><summary id="over-title"></summary><ul id="over-list"></ul></details></section>
<section class="half"><h2>Hosts</h2><div id="picture"></div><div id="backends" class="legend"></div></section>
<section><div class="bar"><h2>Traffic of this host, and etcd</h2><div role="group" aria-label="Range of the charts"><button type="button" data-range="300000" aria-pressed="true">5 min</button><button type="button" data-range="3600000" aria-pressed="false">1 h</button></div></div>
<div class="charts"><div><h3>Packets</h3><div id="packets"></div><div id="packets-legend" class="legend"></div></div>
<div><h3>Bits</h3><div id="bits"></div><div id="bits-legend" class="legend"></div></div>
<div><h3>Dropped packets</h3><div id="drops"></div><div id="drops-legend" class="legend"></div><div id="drop-totals" class="soft"></div></div>
<div><h3>Latency of etcd</h3><div id="etcd"></div><div id="etcd-legend" class="legend"></div></div></div></section>
<section id="tunnel-section" hidden><h2>Tunnel</h2><div id="tunnels"></div></section>
<section><h2>Peers</h2><input id="filter" type="search" placeholder="Filter by name, address or backend" aria-label="Filter peers" hidden><div id="peers" class="scroll" tabindex="0" role="region" aria-label="Peers"></div><div id="more" class="soft"></div></section>
</main>
<noscript>This page needs JavaScript; /status has the same as JSON.</noscript>
`;

function digest(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
