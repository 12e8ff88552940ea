/**
 * Styles of the status page. Colours are variables, so that dark and light differ in one place.
 *
 * @internal
 */
export const PAGE_STYLE = `
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --text: #1b2330; --soft: #5d6878; --line: #dde2e9;
  --tx: #1769d2; --rx: #0e8a5f; --bad: #c62f2f; --warn: #a86400; --good: #0e8a5f;
  --c0: #1769d2; --c1: #0e8a5f; --c2: #a445b8; --c3: #c2670a; --c4: #2b8ea6; --c5: #8a7a12; --c6: #c23d77; --c7: #6a6f7a; }
@media (prefers-color-scheme: dark) { :root { --bg: #11151b; --card: #1a2029; --text: #e5eaf1; --soft: #95a1b2;
  --line: #2d3643; --tx: #5ea5ff; --rx: #3ecf98; --bad: #ff7a70; --warn: #f0b04a; --good: #3ecf98;
  --c0: #5ea5ff; --c1: #3ecf98; --c2: #d58be6; --c3: #f2a04d; --c4: #5cc8e0; --c5: #d3c24c; --c6: #f585b2; --c7: #a5acb8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .3rem .9rem; align-items: baseline; padding: 1rem 1rem 0; max-width: 76rem; margin: 0 auto; }
h1 { font-size: 1.35rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 0 0 .6rem; }
h3 { font-size: .85rem; font-weight: 500; margin: 0 0 .4rem; color: var(--soft); } .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.bar { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .3rem 1rem; margin-bottom: .5rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem 2rem; }
button { font: inherit; font-size: .85rem; color: inherit; background: none; border: 1px solid var(--line); padding: .1rem .7rem; cursor: pointer; }
button:first-child { border-radius: 6px 0 0 6px; } button:last-child { border-radius: 0 6px 6px 0; border-left: 0; } button[aria-pressed=true] { background: var(--text); color: var(--card); }
summary { cursor: pointer; color: var(--soft); margin-top: .6rem; } details ul { margin-top: .4rem; font-size: .88rem; } time { white-space: nowrap; }
:focus-visible { outline: 2px solid var(--tx); outline-offset: 2px; }
main { display: grid; grid-template-columns: repeat(12, 1fr); gap: .8rem; padding: .8rem 1rem 2rem; max-width: 76rem; margin: 0 auto; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; min-width: 0; grid-column: span 12; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); }
.pill { border: 1.5px solid currentColor; border-radius: 99px; padding: 0 .7rem; font-weight: 600; white-space: nowrap; }
.alarm { border-color: var(--bad); } [hidden] { display: none !important; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: .8rem 1.2rem; }
.tile:first-child { grid-column: span 2; } .tile b { display: block; font-size: 1rem; overflow-wrap: anywhere; } .tile span { font-size: .85rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--text); font: 11px system-ui, sans-serif; } svg text.soft { fill: var(--soft); }
.link { stroke: var(--line); } .node { stroke: var(--card); stroke-width: 1.5; } .node.skip { fill: var(--card); stroke: var(--bad); stroke-width: 2; }
.self { fill: var(--text); } svg text.selftext { fill: var(--card); font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); } .s4 { stroke: var(--c4); }
.s5 { stroke: var(--c5); } .s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); } .f4 { fill: var(--c4); }
.f5 { fill: var(--c5); } .f6 { fill: var(--c6); } .f7 { fill: var(--c7); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .85rem; margin: .4rem 0 .5rem; min-height: 1.3rem; }
.legend svg { display: inline-block; width: .8rem; height: .8rem; vertical-align: -1px; margin-right: .3rem; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: .3rem 0 .8rem; }
.chip { border: 1px solid var(--line); border-radius: 6px; padding: .1rem .5rem; font-size: .88rem; } .chip.on { border-color: var(--good); }
.chip.off { color: var(--soft); } .chip.lost { border-color: var(--bad); color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap; } tbody th { font-weight: 500; overflow-wrap: anywhere; }
tr.joined > * { border-bottom: 0; padding-bottom: 0; } td.why { font-size: .88em; overflow-wrap: anywhere; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr:last-child > * { border-bottom: 0; } .slim { display: none; } ul { margin: 0; padding-left: 1.1rem; } li { overflow-wrap: anywhere; }
input { font: inherit; width: 100%; max-width: 20rem; padding: .3rem .6rem; margin-bottom: .6rem; color: inherit; background: var(--bg); border: 1px solid var(--line); border-radius: 6px; }
@media (min-width: 52rem) { .half { grid-column: span 6; } .third { grid-column: span 4; } }
@media (max-width: 32rem) { header, main { padding-left: .6rem; padding-right: .6rem; } section { padding: .8rem .7rem; }
  .wide { display: none; } .slim { display: block; } .tiles { grid-template-columns: 1fr 1fr; } svg text { font-size: 14px; }
  table { font-size: .82rem; } th, td { padding-right: .45rem; } }
`;
