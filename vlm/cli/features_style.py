"""Stylesheet and script of features.html: a light page with quiet colours, so that the maps are the only loud thing.

The script moves the player of a video; without it the contact sheet below shows the same frames. Not a command itself.
"""

STYLE = """
:root { color-scheme: light; --paper: #fbfaf7; --ink: #1d2023; --soft: #5f656b; --faint: #b3b0a8; --line: #e5e2db;
  --accent: #23705c; --control: #b0701f;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, Georgia, "DejaVu Serif", serif;
  --sans: "Inter", "Helvetica Neue", "Segoe UI", system-ui, -apple-system, Roboto, "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans);
  font-variant-numeric: tabular-nums; -webkit-font-smoothing: antialiased; }
main { max-width: 1180px; margin: 0 auto; padding: 64px 32px 88px; }
h1 { font: 500 44px/1.12 var(--serif); letter-spacing: -.012em; margin: 8px 0 16px; overflow-wrap: anywhere; }
h2 { font: 500 27px/1.25 var(--serif); margin: 0 0 14px; overflow-wrap: anywhere; }
h3 { font-size: 14.5px; font-weight: 600; margin: 38px 0 12px; }
h3 span { font-weight: 400; color: var(--soft); margin-left: 8px; }
.overline { font-size: 12.5px; letter-spacing: .09em; text-transform: uppercase; color: var(--soft); margin: 0; }
.lede { font-size: 17.5px; color: var(--soft); max-width: 46em; margin: 0 0 14px; text-wrap: pretty; }
.lede b { font-weight: 600; } .r { color: #b8322a; } .g { color: #2b7d3f; } .b { color: #2b58b8; }
.soft { color: var(--soft); }
.switch { font-size: 14.5px; color: var(--soft); cursor: pointer; }
.switch input { accent-color: var(--accent); vertical-align: -1px; margin: 0 5px 0 0; }
section { margin-top: 68px; border-top: 1px solid var(--line); padding-top: 34px; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; aspect-ratio: var(--shape); object-fit: fill; border-radius: 4px;
  background: var(--line); }
.map { image-rendering: pixelated; }
body:has(#smooth:checked) .map { image-rendering: auto; }
figcaption { font-size: 14px; margin-top: 7px; line-height: 1.4; }
figcaption span { display: block; font-size: 12.5px; color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: 14px 40px; margin: 0 0 26px; }
.figures b { display: block; font: 500 23px/1.25 var(--serif); }
.figures span { font-size: 13px; color: var(--soft); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
.maps, .screens { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 20px 18px;
  margin-top: 24px; }
.maps.tall { grid-template-columns: repeat(auto-fill, minmax(150px, 170px)); }
.pair.tall { grid-template-columns: repeat(2, minmax(0, 400px)); }
.screens { margin-top: 0; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
.screens.tall { grid-template-columns: repeat(auto-fit, minmax(200px, 260px)); }
.controls { display: flex; gap: 16px; align-items: center; margin-bottom: 16px; }
.controls input { flex: 1; accent-color: var(--accent); }
.controls output { font-size: 14px; color: var(--soft); min-width: 9em; text-align: right; }
button { font: 500 14px var(--sans); color: var(--ink); background: #fff; border: 1px solid var(--faint);
  border-radius: 6px; padding: 5px 16px; min-width: 76px; cursor: pointer; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 16px 20px; }
.sheet div { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; }
.sheet img { border-radius: 2px; } .sheet figcaption { font-size: 12.5px; color: var(--soft); margin-top: 3px; }
.sheet figure { cursor: pointer; }
.numbers { display: flex; flex-wrap: wrap; gap: 24px 44px; align-items: flex-start; }
.plot { flex: 1 1 480px; max-width: 700px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: var(--sans); font-size: 12px; fill: var(--soft); }
.tables { display: flex; gap: 32px; } table { border-collapse: collapse; font-size: 13px; align-self: flex-start; }
th { font-weight: 500; color: var(--soft); } th, td { text-align: right; padding: 2px 0 2px 18px; }
td { border-top: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 28px; font-size: 14.5px; margin: 0 0 18px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding: 9px 0; font-size: 14.5px; } summary { cursor: pointer; }
.names { font: 12.5px/1.6 var(--mono); color: var(--soft); overflow-wrap: anywhere; margin: 8px 0; }
code { font-family: var(--mono); font-size: .92em; }
footer { margin-top: 72px; border-top: 1px solid var(--line); padding-top: 16px; font-size: 13px; color: var(--soft); }
@media (max-width: 700px) {
  main { padding: 36px 16px 56px; } h1 { font-size: 32px; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 9px; } .maps, .maps.tall { grid-template-columns: 1fr 1fr; } .pair { gap: 8px; }
}
@media print { figure { break-inside: avoid; } .controls, .switch { display: none; } }
"""

SCRIPT = """
for (const video of document.querySelectorAll(".video")) {
  const frames = [...video.querySelectorAll(".sheet figure")], screens = [...video.querySelectorAll("[data-screen]")];
  const [box, bar] = [".screens", ".controls"].map(name => video.querySelector(name));
  const [button, slider, clock] = ["button", "input", "output"].map(name => bar.querySelector(name));
  let timer = null;
  const show = number => {
    slider.value = number;
    const frame = frames[number], of = name => [...frame.querySelectorAll("img")].find(i => i.dataset.map === name);
    for (const screen of screens) screen.src = of(screen.dataset.screen).src;
    clock.textContent = `${frame.dataset.time} s, frame ${+number + 1} of ${frames.length}`;
  };
  const stop = () => { clearTimeout(timer); timer = null; button.textContent = "Play"; };
  const step = () => {
    const now = +slider.value, next = (now + 1) % frames.length;
    const gap = next ? frames[next].dataset.time - frames[now].dataset.time : 1;
    timer = setTimeout(() => { show(next); step(); }, 1000 * Math.min(Math.max(gap, 0.04), 2));
  };
  button.onclick = () => timer ? stop() : (button.textContent = "Pause", step());
  slider.oninput = () => { stop(); show(+slider.value); };
  frames.forEach((frame, number) => frame.onclick = () => { stop(); show(number); });
  box.hidden = bar.hidden = false;
  show(0);
}
"""
