"""features.html: everything `radio-vlm features` found, on one page that needs no network and no other file.

Not a command itself.
"""

import base64
import importlib.metadata
import platform
from html import escape
from pathlib import Path

import torch

from vlm.cli.features_encode import LAST, Encoded
from vlm.cli.features_pictures import jpeg_bytes, map_picture, png_bytes
from vlm.cli.features_style import SCRIPT, STYLE
from vlm.cli.tables import count

LEDE = (
    "Every square is one patch. Its colour is its feature vector along the first three principal components: "
    "<b class=r>red</b>, <b class=g>green</b>, <b class=b>blue</b>, each stretched from its 1st to its 99th "
    "percentile. {basis}"
)
BASES = {
    True: "All files share one basis for each kind of map, so a colour means the same in all of them.",
    False: "Each file and each kind of map has a basis of its own, so colours are not comparable between them; "
    "the frames of a video share one.",
}


def write_page(path: Path, results: list[Encoded], encoder, args, load_seconds: float) -> None:
    """The page of these results; `args` are the command's."""
    release = getattr(encoder.config, "version", None)
    title = release or Path(str(args.encoder)).name or str(args.encoder)
    body = [
        f"<header><p class=overline>Feature maps</p><h1>{escape(title)}</h1>"
        f"<p class=soft>{escape(in_short(encoder))}</p>"
        f"<p class=lede>{LEDE.format(basis=BASES[args.shared_basis])}</p>{smoothing_switch()}</header>",
        *(file_section(done) for done in results),
        f"<section><h2>Encoder</h2>{facts(encoder_facts(encoder, args.encoder, load_seconds))}"
        f"{left_out(encoder)}</section>",
        f"<footer>{versions()}</footer>",
    ]
    path.write_text(
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Feature maps, {escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main><script>{SCRIPT}</script></body></html>\n",
        encoding="utf-8",
    )


def smoothing_switch() -> str:
    """A box that smooths all maps, in CSS alone."""
    return "<label class=switch><input type=checkbox id=smooth> smooth the maps</label>"


def file_section(done: Encoded) -> str:
    """One file: pictures, then numbers."""
    show = video_maps if done.kind == "video" else picture_maps
    return (
        f"<section><h2>{escape(done.path.name)}</h2>{token_line(done)}{show(done)}"
        "<h3>Features of every block <span>mean and standard deviation over patches and channels</span></h3>"
        f"<div class=numbers><div class=plot>{stats_chart(done.stats)}</div>{stats_table(done.stats)}</div></section>"
    )


def token_line(done: Encoded) -> str:
    """Sizes, tokens and time as a row of figures."""
    (h, w), (rows, columns) = done.size, done.grid
    odd = " (odd side filled up)" if rows % 2 or columns % 2 else ""
    per = f"median of {done.runs} warm passes" if done.runs > 1 else "warm pass"
    per = "a frame, warm" if done.kind == "video" else per
    figures = [
        (f"{rows} × {columns}", f"grid of {done.patches:,} patches"),
        (f"{done.prefix_tokens}", "prefix tokens"),
        (f"{done.shuffled_tokens:,}", f"tokens after a 2 × 2 pixel shuffle{odd}"),
        (f"{done.milliseconds:,.1f} ms" if done.milliseconds < 1000 else f"{done.milliseconds / 1000:,.2f} s", per),
    ]
    if done.kind == "video":
        figures.insert(0, (f"{len(done.frames)}", f"frames of {done.times[0]:.1f} to {done.times[-1]:.1f} s"))
    same = "its own size" if done.original == done.size else f"from {done.original[0]} × {done.original[1]}"
    figures.insert(0, (f"{h} × {w}", f"pixels (height × width), {same}"))
    return "<div class=figures>" + "".join(f"<div><b>{a}</b><span>{b}</span></div>" for a, b in figures) + "</div>"


def picture_maps(done: Encoded) -> str:
    """The picture beside the map of the last layer, the other maps smaller below."""
    first, *others = done.colours
    shape = f"style='--shape:{done.original[1]}/{done.original[0]}'"
    picture = f"<figure><img src='{data_uri(jpeg_bytes(done.frames[0], 960), 'jpeg')}' alt='{escape(done.path.name)}'>"
    large = f"{picture}<figcaption>picture</figcaption></figure>{map_figure(done, first)}"
    return f"<div class='pair{_tall(done)}' {shape}>{large}</div><div class='maps{_tall(done)}' {shape}>" + "".join(
        map_figure(done, name) for name in others
    ) + "</div>"  # fmt: skip


def map_figure(done: Encoded, name: str, frame: int = 0) -> str:
    return f"<figure>{map_image(done, name, frame)}{map_caption(done, name)}</figure>"


def map_image(done: Encoded, name: str, frame: int, extra: str = "") -> str:
    source = data_uri(png_bytes(map_picture(done.colours[name][frame])), "png")
    return f"<img class=map {extra} src='{source}' alt='feature map, {escape(name)}'>"


def map_caption(done: Encoded, name: str) -> str:
    """Which features, and how much of their variance the colours show."""
    shares = done.explained[name]
    rows, columns = done.colours[name].shape[1:3]
    grid = f", {rows} × {columns}" if (rows, columns) != done.grid else ""
    each = ", ".join(f"{100 * share:.0f}" for share in shares)
    shown = f"{100 * sum(shares):.0f} % of the variance ({each})"
    return f"<figcaption>{escape(name)}{grid}<span>{shown}</span></figcaption>"


def video_maps(done: Encoded) -> str:
    """A player of all maps in step (by the page's script) and the contact sheet that feeds it."""
    shape = f"style='--shape:{done.original[1]}/{done.original[0]}'"
    names = list(done.colours)
    cells = []
    for number, (frame, time) in enumerate(zip(done.frames, done.times)):
        picture = f"<img data-map=picture src='{data_uri(jpeg_bytes(frame, 480), 'jpeg')}' alt='frame at {time:.2f} s'>"
        maps = "".join(
            map_image(done, name, number, f"data-map='{escape(name)}'" + " hidden" * (name != LAST)) for name in names
        )
        caption = f"<figcaption>{time:.2f} s</figcaption>"
        cells.append(f"<figure data-time='{time:.2f}'><div>{picture}{maps}</div>{caption}</figure>")
    screens = "".join(
        f"<figure><img data-screen='{escape(name)}' {'' if name == 'picture' else 'class=map'} alt='{escape(name)}'>"
        + ("<figcaption>picture</figcaption>" if name == "picture" else map_caption(done, name)) + "</figure>"
        for name in ["picture", *names]
    )  # fmt: skip
    return (
        f"<div class=video {shape}>"
        "<div class=controls hidden><button type=button>Play</button><input type=range min=0 value=0 step=1 "
        f"max={len(done.frames) - 1} aria-label=frame><output></output></div>"
        f"<div class='screens{_tall(done)}' hidden>{screens}</div>"
        f"<h3>All frames, {LAST}</h3><div class=sheet>{''.join(cells)}</div></div>"
    )


def _signed(value: float, how: str) -> str:
    return format(value, how).replace("-", "−")


def _tall(done: Encoded) -> str:
    return " tall" if done.original[0] > 1.4 * done.original[1] else ""


def stats_chart(stats: list[tuple[float, float]], width: float = 620) -> str:
    """Mean and standard deviation over the blocks as two lines; about as high as the table beside it."""
    from eval.report.charts import line, svg, text, ticks

    height = 240.0 if len(stats) <= 12 else 340.0
    left, right, top, bottom = 44.0, 118.0, 14.0, 34.0
    means, deviations = [mean for mean, _ in stats], [std for _, std in stats]
    high, low = max(*deviations, *means, 0.0) or 1.0, min(*means, 0.0)

    def at(block: int, value: float) -> tuple[float, float]:
        x = left + (width - left - right) * (block / max(len(stats) - 1, 1))
        return x, top + (height - top - bottom) * (high - value) / (high - low)

    below = [-tick for tick in ticks(-low, 2)[1:]] if low < 0 else []
    parts = []
    for tick in [*ticks(high, 4), *(tick for tick in below if -tick > 0.1 * high)]:
        y = at(0, tick)[1]
        parts += [line(left, y, width - right, y, "var(--faint)" if tick == 0 else "var(--line)")]
        parts += [text(left - 8, y + 4, _signed(tick, "g"), "end")]
    every = max(1, -(-len(stats) // 16))
    for block in range(0, len(stats), every):
        parts.append(text(at(block, 0)[0], height - 14, str(block), "middle"))
    parts.append(text(width - right + 14, height - 14, "block"))
    ends = []
    for name, values, colour in (("std", deviations, "var(--accent)"), ("mean", means, "var(--control)")):
        points = [at(block, value) for block, value in enumerate(values)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
        for (x, y), (block, value) in zip(points, enumerate(values)):
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}">'
                f"<title>block {block}: {name} {value:.4g}</title></circle>"
            )
        ends.append([points[-1][1], f"{name} {_signed(values[-1], '.3g')}", colour])
    if abs(ends[0][0] - ends[1][0]) < 15:  # labels that would touch
        middle, upper = (ends[0][0] + ends[1][0]) / 2, 0 if ends[0][0] <= ends[1][0] else 1
        ends[upper][0], ends[1 - upper][0] = middle - 8, middle + 8
    parts += [text(width - right + 14, y + 4, words, style=f"fill:{c};font-weight:600") for y, words, c in ends]
    return svg(width, height, parts, "Mean and standard deviation of the features of every block")


def stats_table(stats: list[tuple[float, float]]) -> str:
    """The same as figures; long tables run in two columns."""
    rows = [f"<tr><td>{block}<td>{_signed(mean, '.4f')}<td>{std:.4f}" for block, (mean, std) in enumerate(stats)]
    parts = [rows] if len(rows) <= 12 else [rows[: -(-len(rows) // 2)], rows[-(-len(rows) // 2) :]]
    head = "<tr><th>block<th>mean<th>std"
    return "<div class=tables>" + "".join(f"<table>{head}{''.join(part)}</table>" for part in parts) + "</div>"


def in_short(encoder) -> str:
    """The encoder in one line."""
    config, held = encoder.config, sum(p.numel() for p in encoder.parameters())
    window = getattr(config, "vitdet_window_size", None)
    parts = (f"{config.num_hidden_layers} blocks of width {config.hidden_size}", f"{count(held)} parameters")
    parts += (f"windows of {window} × {window}" if window else "global attention",)
    return " · ".join((*parts, f"{str(encoder.dtype).removeprefix('torch.')} on {device_name(encoder.device)}"))


def encoder_facts(encoder, source: str, load_seconds: float) -> dict[str, str]:
    """What was opened, in words."""
    config = encoder.config
    held = sum(p.numel() for p in encoder.parameters())
    heads = sum(p.numel() for p in encoder.adaptors.parameters()) if getattr(encoder, "adaptors", None) else 0
    table = encoder.embeddings.position_embedding.numel()
    size = f"{config.patch_size}-pixel patches; sides are multiples of {encoder.min_resolution_step}"
    for name in ("preferred_resolution", "max_resolution"):
        if value := getattr(config, name, None):
            words = value if isinstance(value, int) else " × ".join(map(str, value))
            size += f"; {name.replace('_resolution', '')} {words}"
    found = {
        "source": str(source),
        "release": getattr(config, "version", None) or "not known from the checkpoint",
        "architecture": f"{config.num_hidden_layers} blocks of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads",
        "parameters": f"{held:,} ({count(held)}), of them {table:,} positions"
        + (f" and {heads:,} in adaptors" if heads else ""),
        "sizes": size,
        "attention": attention(config),
        "prefix tokens": f"{config.num_cls_tokens} class and {config.num_registers} register tokens; "
        f"the summary is made of class tokens {', '.join(map(str, config.summary_idxs))}",
        "normalizers": normalizers(config),
        "adaptors": ", ".join(getattr(config, "adaptors", None) or {}) or "none loaded",
        "runs on": f"{device_name(encoder.device)}, weights in {str(encoder.dtype).removeprefix('torch.')}, "
        f"attention {config._attn_implementation}",
        "loaded in": f"{load_seconds:.1f} s",
    }
    return found


def attention(config) -> str:
    """Global, or which blocks are."""
    window = getattr(config, "vitdet_window_size", None)
    if not window:
        return "global in every block"
    from encoders.vitdet import window_schedule

    windowed = window_schedule(config.num_hidden_layers, config.vitdet_num_global, config.vitdet_num_windowed)
    blocks = ", ".join(str(block) for block, is_windowed in enumerate(windowed) if not is_windowed)
    return f"in windows of {window} × {window} patches (ViTDet); global in blocks {blocks}"


def normalizers(config) -> str:
    words = [
        words for name, words in (
            ("feature_normalizer", "of the features"), ("intermediate_normalizer", "of every block's features"),
        ) if getattr(config, name, None)
    ]  # fmt: skip
    return ", ".join(words) or "none"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"


def left_out(encoder) -> str:
    """What of the checkpoint is not in the model, by reason, and what loading noted."""
    report = getattr(encoder, "report", None)
    if report is None:
        return ""
    notes = "".join(f"<p class=soft>{escape(note)}</p>" for note in getattr(report, "notes", ()))
    reasons: dict[str, list[str]] = {}
    for name, reason in report.left_out.items():
        reasons.setdefault(str(reason), []).append(name)
    if not reasons:
        return f"{notes}<p class=soft>Every weight of the checkpoint is in use.</p>"
    lists = "".join(
        f"<details><summary>{escape(reason)} <span class=soft>({len(names)} weights)</span></summary>"
        f"<p class=names>{escape(', '.join(names))}</p></details>"
        for reason, names in reasons.items()
    )
    return f"{notes}<h3>Left out of the checkpoint</h3>{lists}"


def facts(items: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}<dd>{escape(v)}" for k, v in items.items()) + "</dl>"


def versions() -> str:
    names = ("torch", "transformers", "radio-vlm")
    found = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "Written by <code>radio-vlm features</code>. " + escape(", ".join(found))


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
