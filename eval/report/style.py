"""The page's stylesheet: one column, quiet colours, figures that line up; light or dark as the reader has it."""

STYLE = """
:root {
  --paper: #fbfaf7; --panel: #ffffff; --ink: #1d2023; --soft: #5f656b; --faint: #8b9096; --line: #e5e2db;
  --mat: #eeece6; --accent: #23705c; --control: #b0701f; --wrong: #b2452f;
  --s1: #23705c; --s2: #3a62a8; --s3: #8d4a86; --s4: #77731f; --s5: #3b8397;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif Pro", Charter, Georgia,
    "DejaVu Serif", serif;
  --sans: "Inter", "Helvetica Neue", "Segoe UI", system-ui, -apple-system, Roboto, "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #121416; --panel: #191c1f; --ink: #e9e7e2; --soft: #a7aaad; --faint: #7d8287; --line: #2b2f33;
  --mat: #0c0e0f; --accent: #6cc3a6; --control: #dda65c; --wrong: #e5826c;
  --s1: #6cc3a6; --s2: #8eaeea; --s3: #d49bcf; --s4: #c5c069; --s5: #7cc6d8;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans);
  font-variant-numeric: tabular-nums; -webkit-font-smoothing: antialiased; }
main { max-width: 1080px; margin: 0 auto; padding: 72px 32px 96px; }
h1 { font: 500 46px/1.12 var(--serif); letter-spacing: -.012em; margin: 10px 0 18px; max-width: 20em;
  text-wrap: balance; }
h2 { font: 500 27px/1.25 var(--serif); letter-spacing: -.005em; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 44em; }
section { margin-top: 84px; }
section > p.lede { color: var(--soft); margin-bottom: 28px; text-wrap: pretty; }
header p.lede { font-size: 18.5px; color: var(--soft); max-width: 40em; text-wrap: pretty; }
.overline { font-size: 12.5px; letter-spacing: .09em; text-transform: uppercase; color: var(--faint); margin: 0; }
.soft { color: var(--soft); } .faint { color: var(--faint); } .gap { height: 26px; }
code { font-family: var(--mono); font-size: .88em; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: var(--sans); font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot { overflow-x: auto; } .plot svg { min-width: 620px; }

.heads { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 20px; margin-top: 44px; }
.head { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px; }
.head .name { font-weight: 600; font-size: 15px; }
.head .big { font: 400 56px/1 var(--serif); letter-spacing: -.02em; margin: 12px 0 8px; }
.head .of { font-size: 14px; color: var(--soft); margin-bottom: 18px; }
.bar { display: grid; grid-template-columns: 1fr 40px; gap: 1px 10px; align-items: center; font-size: 13.5px;
  margin-top: 9px; }
.bar .track { height: 5px; border-radius: 3px; background: var(--line); }
.bar .track i { display: block; height: 5px; border-radius: 3px; background: var(--accent); min-width: 2px; }
.control-bar .track i { background: var(--control); }
.bar .label { grid-column: 1 / 3; color: var(--soft); line-height: 1.3; }
.bar b { font-weight: 500; text-align: right; }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th { font-weight: 500; text-align: right; color: var(--soft); padding: 6px 12px; vertical-align: bottom;
  white-space: nowrap; }
th small, td small { display: block; font-size: 12px; color: var(--faint); font-weight: 400; }
td { padding: 5px 12px; text-align: right; border-top: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr.task td { font: 500 19px/1.3 var(--serif); padding: 26px 0 7px; border-top: 0; }
tr.task td small { display: inline; font: 400 13px var(--sans); margin-left: 10px; }
tr.figure td { font-weight: 600; }
tr.kind td { color: var(--soft); } tr.kind td:first-child { padding-left: 18px; }
tr.control-row td { color: var(--control); } tr.control-row td:first-child { padding-left: 18px; }
td s { text-decoration: none; color: var(--control); font-size: 12.5px; margin-left: 9px; }
table.plain td { vertical-align: top; } table.plain td:not(:first-child) { color: var(--soft); }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 20px; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  display: flex; flex-direction: column; }
.shown { background: var(--mat); display: flex; justify-content: center; align-items: center; height: 228px;
  padding: 10px; color: var(--faint); font-size: 13px; }
.shown > img { max-width: 100%; height: 208px; object-fit: contain; border-radius: 3px; }
.frames { display: grid; gap: 5px; grid-template-columns: repeat(var(--columns), minmax(0, auto));
  counter-reset: frame; }
.frames span { position: relative; counter-increment: frame; display: block; }
.frames img { display: block; max-width: 100%; height: calc((208px - 5px * (var(--rows) - 1)) / var(--rows));
  object-fit: contain; border-radius: 3px; }
.frames span::after { content: counter(frame); position: absolute; left: 5px; top: 3px; font-size: 11px; color: #fff;
  text-shadow: 0 0 3px #000, 0 0 2px #000; }
.crisp { image-rendering: pixelated; }
.words { padding: 15px 18px 16px; display: flex; flex-direction: column; gap: 3px; flex: 1; }
.where { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 14px; font-size: 12.5px;
  color: var(--faint); margin-bottom: 5px; white-space: nowrap; }
.where span:last-child { max-width: 100%; overflow: hidden; text-overflow: ellipsis; }
.asked { font: 400 19px/1.35 var(--serif); overflow-wrap: anywhere; }
.said { font-size: 15px; overflow-wrap: anywhere; } .said b { font-weight: 600; }
.who { font-size: 12.5px; color: var(--faint); } .who::after { content: ":"; }
.more { background: var(--mat); color: var(--faint); font-size: 12.5px; text-align: center; padding-bottom: 8px; }
.notes { margin: 0; padding: 0; list-style: none; font-size: 14.5px; max-width: 58em; }
.notes li { padding: 6px 0 6px 14px; border-left: 3px solid var(--line); margin-bottom: 10px; overflow-wrap: anywhere; }
.notes p { margin: 2px 0; max-width: none; } .notes b { font-weight: 600; } .notes small { color: var(--faint); }
.warnings li { border-left-color: var(--control); }
.grid { display: grid; gap: 34px 40px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.grid figcaption { font-size: 13.5px; margin-bottom: 8px; color: var(--soft); } .grid figcaption b { color: var(--ink);
  font-weight: 600; }
.wide svg { max-width: 860px; } .phone { display: none; }
tr.control-row td small { white-space: normal; min-width: 9em; }
.compact td:first-child:not([colspan]), .roomy td:nth-child(2), .roomy td:last-child { white-space: normal;
  overflow-wrap: anywhere; min-width: 9.5em; }
.compact { max-width: 680px; } .dense th { white-space: normal; max-width: 7em; }
.dense th, .dense td { padding-left: 8px; padding-right: 8px; }
.up { color: var(--accent); } .down { color: var(--wrong); }
.right { color: var(--accent); } .wrong { color: var(--wrong); }
.foot { margin-top: auto; padding-top: 11px; font-size: 13px; color: var(--control); overflow-wrap: anywhere; }
.turns { font-size: 13.5px; color: var(--soft); margin: 3px 0 5px; padding-left: 12px;
  border-left: 2px solid var(--line); }
.turns p { margin: 2px 0; } .turns code { color: var(--ink); }

.notice { display: inline-block; max-width: none; margin: 0 0 26px; padding: 7px 14px; font-size: 14.5px;
  font-weight: 600; color: var(--control); border: 1px solid var(--control); border-radius: 6px; }
h3 { font: 500 19px/1.3 var(--serif); margin: 34px 0 14px; } h3:first-of-type { margin-top: 0; }
h3 small { font: 400 13px var(--sans); color: var(--faint); margin-left: 10px; }
.matrix figcaption, .yesno figcaption { font-size: 14px; font-weight: 600; margin: 0 0 8px; }
.matrix { width: fit-content; max-width: 100%; margin-bottom: 34px; }
.matrix table { border-collapse: separate; border-spacing: 3px; width: auto; margin: 0 0 0 -3px; }
.matrix th { font-size: 13.5px; padding: 4px 10px; } .matrix tbody th { text-align: left; color: var(--ink);
  vertical-align: middle; white-space: normal; max-width: 15em; padding-left: 3px; }
.matrix thead th:first-child { color: var(--faint); font-size: 12.5px; padding-left: 3px; }
.matrix thead th { text-align: center; }
.matrix td { text-align: center; border: 0; border-radius: 5px; padding: 6px 14px; min-width: 68px; line-height: 1.25;
  background: color-mix(in srgb, var(--cell) calc(var(--share) * 46%), var(--mat)); }
.matrix td:first-child, .matrix td:last-child { padding: 6px 14px; text-align: center; }
.matrix td small { color: var(--soft); } .hit { --cell: var(--accent); } .miss { --cell: var(--wrong); }
.matrix td.zero { background: var(--mat); color: var(--faint); }
.matrices { display: flex; flex-wrap: wrap; gap: 0 52px; align-items: flex-start; }
.yesno { overflow-x: auto; } .yesno td, .yesno th { text-align: center; padding: 5px 8px; }
.yesno td:first-child { text-align: left; padding-left: 0; } .drawn { margin-top: 14px; }
tr.over th { text-align: center; font-weight: 600; color: var(--ink); padding-bottom: 0; }

.talks { columns: 2 440px; column-gap: 24px; } .talk { break-inside: avoid; margin-bottom: 24px; }
.slices { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); gap: 10px; background: var(--mat);
  padding: 12px 12px 8px; }
.slices figure:only-child { width: 50%; justify-self: center; }
.slices img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px; background: #000; }
.slices figcaption { font-size: 12.5px; color: var(--soft); text-align: center; margin-top: 6px; }
.labels { background: var(--mat); display: flex; flex-wrap: wrap; justify-content: center; gap: 2px 18px;
  font-size: 13px; padding: 0 14px 11px; color: var(--soft); }
.labels i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; box-shadow: 0 0 0 1px rgb(128 128 128 / .35); }
.talk .words { gap: 10px; }
.dialogue { display: grid; gap: 5px; } .dialogue p { margin: 0; max-width: none; display: grid;
  grid-template-columns: 76px minmax(0, 1fr); gap: 12px; align-items: baseline; font-size: 14.5px;
  overflow-wrap: anywhere; }
.dialogue p > span:first-child { font-size: 12px; color: var(--faint); text-align: right; overflow-wrap: anywhere; }
.dialogue code { background: var(--mat); border: 1px solid var(--line); border-radius: 4px; padding: 1px 6px;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.dialogue small { font-size: 12px; color: var(--faint); margin-left: 9px; white-space: nowrap; }
.dialogue .expert > span:last-child, .dialogue .failed > span:last-child { border-left: 2px solid var(--accent);
  padding-left: 10px; }
.dialogue .failed { color: var(--control); }
.dialogue .failed > span:last-child { border-left-color: var(--control); }
.dialogue .note { font-size: 12.5px; color: var(--faint); } .dialogue .note code { font-size: .95em; }
.control { display: flex; gap: 14px; align-items: flex-start; border-left: 3px solid var(--control);
  padding: 2px 0 2px 12px; margin-top: 4px; font-size: 13.5px; }
.control > div { flex: 1; min-width: 0; } .control b { font-weight: 600; } .control > div > b { color: var(--control); }
.control img { width: 88px; border-radius: 4px; flex: none; }
.control .dialogue { margin-top: 4px; } .control .dialogue p { font-size: 13.5px;
  grid-template-columns: 70px minmax(0, 1fr); }

.maps { display: grid; gap: 24px 28px; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); }
.map .row { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 6px; }
.map img { width: 100%; aspect-ratio: var(--shape); object-fit: fill; border-radius: 4px; display: block; }
.map figcaption { font-size: 13px; color: var(--soft); margin-top: 7px; }
figure { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; font-size: 13.5px; color: var(--soft); margin: 16px 0 0; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px;
  background: var(--accent); }
.legend i.s2 { background: var(--s2); } .legend i.s3 { background: var(--s3); }
.legend i.s4 { background: var(--s4); } .legend i.s5 { background: var(--s5); }
.legend i.grey { background: var(--faint); }
.legend i.hollow { background: none; border: 2px solid var(--control); } .legend i.faded { opacity: .3; }
.legend i.square { border-radius: 0; } .legend i.diamond { border-radius: 0; transform: rotate(45deg); width: 9px;
  height: 9px; }
.legend i.cross { border: 0; border-radius: 0; background:
  linear-gradient(45deg, transparent 42%, var(--control) 42% 58%, transparent 58%),
  linear-gradient(-45deg, transparent 42%, var(--control) 42% 58%, transparent 58%); }
.legend i.lower { border-radius: 0; background: var(--wrong); clip-path: polygon(0 0, 100% 0, 50% 100%); }
details { border-top: 1px solid var(--line); padding: 10px 0; }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; font-size: 14.5px; } details > *:not(summary) { margin-top: 12px; }
pre { font: 12.5px/1.5 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; color: var(--soft); margin: 0;
  max-height: 420px; overflow: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 26px; font-size: 14.5px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
footer { margin-top: 88px; border-top: 1px solid var(--line); padding-top: 18px; font-size: 13px;
  color: var(--faint); }
@media (max-width: 640px) {
  main { padding: 40px 18px 64px; } h1 { font-size: 33px; } section { margin-top: 60px; }
  .scroll td:first-child:not([colspan]), .scroll th:first-child { position: sticky; left: 0; background: var(--paper);
    white-space: normal; overflow-wrap: anywhere; min-width: 9.5em; }
  .dense th { min-width: 4.5em; }
  .wide { display: none; } .phone { display: block; }
  .maps { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 10px; }
}
@media (max-width: 640px) { .matrix td, .matrix td:first-child, .matrix td:last-child { padding: 6px 8px;
  min-width: 54px; } .matrix th { padding: 4px 5px; } .dialogue p { grid-template-columns: 70px minmax(0, 1fr); } }
@media print { .card, .head, figure { break-inside: avoid; } }
"""
