"""The page of `radio-vlm check-data --html`: one file that needs no network, light or dark as the reader has it.

Its style and its pieces are those of the evaluation report. Not a command itself.
"""

import importlib.metadata
import platform
from html import escape
from pathlib import Path

from vlm.cli.check_data_charts import bars, histogram, size_map

THUMBNAIL = 360  # pixels
PAIRS = 12
LONGEST = 20_000  # characters of one stretch of a preview
OWN_STYLE = """
.heads { grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); gap: 16px; }
.head { padding: 18px 20px 2px; } .head .big { font-size: 44px; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 11em; }
.sources table { font-size: 14px; } .sources :is(th, td):not(:first-child, :last-child) {
  padding-left: 9px; padding-right: 9px; }
.seen { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; line-height: 1.55; max-height: 21em;
  overflow: auto; color: var(--faint); }
.seen b { font-weight: 600; color: var(--ink); } .seen i { font-style: normal; color: var(--control);
  white-space: nowrap; }
.thumbs { display: flex; flex-wrap: wrap; gap: 6px; justify-content: center; align-items: center; }
.shown .thumbs img { max-height: 208px; max-width: 100%; object-fit: contain; border-radius: 3px; }
.wide { grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 5px; background: var(--mat); padding: 8px; }
.pair img { width: 100%; height: 208px; object-fit: contain; display: block; }
.said.small { font-size: 13px; color: var(--soft); }
.bad { color: var(--wrong); } .good { color: var(--accent); }
h3 { font: 600 15px/1.4 var(--sans); margin: 34px 0 8px; overflow-wrap: anywhere; }
h3 small { font-weight: 400; color: var(--soft); margin-left: 8px; font-size: 13px; }
.wraps th, .wraps td { text-align: left; padding-left: 0; padding-right: 24px; }
.wraps td { white-space: normal; overflow-wrap: anywhere; min-width: 8em; width: 28%; }
.wraps td:last-child { width: auto; min-width: 18em; padding-right: 0; } .wraps td:nth-child(2) { width: 18%; }
ul.notes { margin: 0; padding-left: 1.1em; color: var(--soft); max-width: 46em; }
@media (max-width: 640px) { .wide { grid-template-columns: 1fr; } }
"""


def write_page(path: Path, report, plan, shown) -> None:
    """`report`: training.data.check.Report; `plan`: what was asked; `shown`: the previews."""
    from eval.report.style import STYLE

    body = [
        _header(report, plan),
        _sources(report),
        _problems(report),
        _heldout(report),
        _lengths(report),
        _languages(report),
        _sizes(report),
        _previews(shown),
        _duplicates(report),
        f"<footer>{_versions()}</footer>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Data check, {escape(plan.title)}</title><style>{STYLE}{OWN_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n",
        encoding="utf-8",
        errors="xmlcharrefreplace",  # half a surrogate pair, which records may hold
    )


def _header(report, plan) -> str:
    from eval.report.parts import count

    samples, bad = (sum(getattr(one, name) for one in report.sources) for name in ("samples", "bad"))
    tokens = sum(one.tokens["total"] for one in report.sources if one.tokens)
    learned = sum(one.trained_tokens or 0 for one in report.sources)
    images, volumes = (sum(getattr(one, name) for one in report.sources) for name in ("images", "volumes"))
    verdict = "Everything is in order" if report.ok else f"{count(bad)} of {count(samples)} samples are bad"
    if not report.ok and not bad:
        unread = report.problems.counts["unreadable_source"]
        words = f"{count(unread)} of {len(report.sources)} sources cannot be read"
        verdict = words if unread else "Not finished"
    cards = [
        ("Samples", count(samples), f"in {len(report.sources)} sources"),
        ("Bad", count(bad), f"{bad / max(1, samples):.2%} of the samples"),
        ("Images", count(images), f"{count(sum(one.videos for one in report.sources))} videos, "
         f"{count(sum(one.documents for one in report.sources))} documents"
         + (f", {count(volumes)} volumes" if volumes else "")),
    ]  # fmt: skip
    if tokens:
        cards.append(("Tokens", _large(tokens), f"{learned / tokens:.1%} of them learned"))
    if any(one.role == "eval" for one in report.sources):
        cards.append(("Held out, seen", count(len(report.repeats.overlap)), "held-out samples found in training"))
    heads = "".join(
        f'<div class="head"><div class="name">{name}</div>'
        f'<div class="big{" bad" if name in ("Bad", "Held out, seen") and value != "0" else ""}">{value}</div>'
        f'<div class="of">{words}</div></div>' for name, value, words in cards
    )  # fmt: skip
    notes = "".join(f"<li>{escape(note)}</li>" for note in plan.notes)
    stop = "<p class='bad'>Interrupted: this is what was found until then.</p>" if report.interrupted else ""
    return (
        f'<header><p class="overline">Data check</p><h1>{verdict}</h1><p class="lede">{escape(plan.title)}</p>{stop}'
        f'<ul class="notes">{notes}</ul></header><div class="heads">{heads}</div>'
    )


def _sources(report) -> str:
    from eval.report.parts import count, section, table

    head = ("source", "format", "samples", "bad", "images", "videos", "documents", "volumes", "text only",
            "tokens, median", "95 %", "longest", "learned")  # fmt: skip
    rows = []
    for one in report.sources:
        lengths = one.tokens or {}
        name = escape(one.path) + "".join(f"<small>{word}</small>" for word in _words(one))
        learned = f"{one.trained_tokens / max(1, lengths['total']):.0%}" if lengths else "–"
        figures = [count(getattr(one, name)) for name in ("images", "videos", "documents", "volumes", "text_only")]
        bad = f'<span class="bad">{count(one.bad)}</span>' if one.bad else "0"
        figures += [count(lengths[key]) if lengths else "–" for key in ("median", "p95", "max")]
        kind = escape(one.format) or '<span class="bad">unreadable</span>'
        rows.append((name, kind, count(one.samples), bad, *figures, learned))
    told = [place for place in range(len(head)) if place < 4 or any(row[place] not in ("0", "–") for row in rows)]
    rows = [[row[place] for place in told] for row in rows]
    return section("Sources", "", f'<div class="sources">{table([head[place] for place in told], rows)}</div>')


def _problems(report) -> str:
    from eval.report.parts import count, fold, section, table

    folds = ""
    for reason, number in report.reasons().items():
        examples = report.problems.examples[reason]
        rows = [
            (escape(one.where), escape(one.id or "–"),
             f'{escape(one.message)}' + (f"<small>{escape(one.file)}</small>" if one.file else ""))
            for one in examples
        ]  # fmt: skip
        more = f"<p class='soft'>The first {len(rows)} of {count(number)}.</p>" if number > len(rows) else ""
        body = f'<div class="wraps">{table(("place", "sample", "what is wrong"), rows, plain=True)}</div>'
        folds += fold(f"{reason}: {count(number)}", body + more)
    folds = folds.replace("<details>", "<details open>", 1)
    return section("Problems", "Grouped by kind, the most frequent first.", folds)


def _lengths(report) -> str:
    from eval.report.parts import plot, section

    body = ""
    for one, tally in zip(report.sources, report.tallies):
        name, unit = ("tokens", "tokens") if one.tokens else ("characters", "characters")
        values = tally.known(name)
        if len(values):
            limit = one.max_length if one.tokens else None
            body += f"<h3>{escape(one.path)}{_small(one)}</h3>{plot(histogram(values, limit, unit))}"
    lede = "Samples by length. What is longer than max_length is refused, never cut, and counts as bad."
    return section("Lengths", lede, body)


def _languages(report) -> str:
    from eval.report.parts import plot, section

    body = ""
    for one in report.sources:
        if one.languages:
            body += f"<h3>{escape(one.path)}{_small(one)}</h3>{plot(bars(one.languages))}"
    lede = "A guess from the script and the commonest words of each sample; a few words tell little."
    return section("Languages", lede, body)


def _sizes(report) -> str:
    import numpy as np

    from eval.report.parts import plot, section

    sides = [np.concatenate([np.asarray(getattr(tally, name)) for tally in report.tallies] or [[]])
             for name in ("widths", "heights")]  # fmt: skip
    if not len(sides[0]):
        return ""
    lede = "Width and height of every image, darker where there are more. On the dotted line pictures are square."
    return section("Picture sizes", lede, plot(size_map(*sides)))


def _previews(shown) -> str:
    from eval.report.parts import section

    cards = ""
    for one in shown:
        thumbs = "".join(_thumbnail(image, 4) for image in one.images[:4])
        picture = f'<div class="shown"><div class="thumbs">{thumbs}</div></div>' if thumbs else ""
        text = "".join(_segment(segment) for segment in one.segments)
        tokens = "" if one.tokens is None else f"{one.tokens} tokens, {one.trained} learned"
        cards += (
            f'<div class="card">{picture}<div class="words"><div class="where"><span>{tokens or escape(one.source)}'
            f'</span><span>{escape(one.where)}</span></div><div class="seen">{text}</div></div></div>'
        )
    lede = "What is learned is dark, what is masked is grey, media stand in brackets."
    return section("As the model sees it", lede, f'<div class="cards wide">{cards}</div>' if cards else "")


def _segment(segment) -> str:
    tag, text = "i" if segment.medium else "b" if segment.learned else "", segment.text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} … [{len(text) - LONGEST:,} characters not shown]"
    return f"<{tag}>{escape(text)}</{tag}>" if tag else escape(text)


def _duplicates(report) -> str:
    from eval.report.parts import count, section

    repeats = report.repeats
    body = ""
    if report.compared_looks:
        body += (
            f"<p>{count(repeats.pictures)} picture files were compared, {count(repeats.blank)} of them blank. "
            f"{count(repeats.grouped)} training pictures lie in {count(repeats.groups)} groups that look the same "
            f"within {repeats.distance} of 256 bits.</p>{_pairs(report, repeats.pairs)}"
        )
    if repeats.conversations:
        rows = "".join(f"<li>{escape(two['other'])} repeats {escape(two['first'])}</li>"
                       for two in map(report.pair, repeats.conversation_pairs[:PAIRS]))  # fmt: skip
        body += (
            f"<h3>{count(repeats.conversations)} training samples repeat an earlier one: the same words and media</h3>"
            f'<ul class="notes">{rows}</ul>'
        )
    return section("Duplicates in training", "Not counted as bad: a corpus may mean to repeat itself.", body)


def _heldout(report) -> str:
    from eval.report.parts import section

    pairs = sorted(report.repeats.overlap.values(), key=lambda pair: (pair.words, pair.bits))
    lede = "Left the training sample, right the held-out one. A score on such samples measures memory."
    return section("Held-out samples that are in training", lede, _pairs(report, pairs))


def _pairs(report, pairs) -> str:
    """A card for every two pictures, however many questions are asked about them."""
    groups: dict[tuple, list] = {}
    for pair in pairs:
        medium = report.medium(pair.other) if len(groups) <= PAIRS else None
        groups.setdefault((pair.first, pair.words, repr(medium or pair.other)), []).append(pair)
    cards = ""
    for group in list(groups.values())[:PAIRS]:
        pair, more = group[0], f" and {len(group) - 1} more samples" if len(group) > 1 else ""
        thumbs = [_thumbnail(_picture(report, place)) for place in (pair.first, pair.other)]
        pictures = f'<div class="pair">{"".join(thumbs)}</div>' if all(thumbs) else ""
        bits = f"{pair.bits} of 256 bits differ" if pair.bits else "the same"
        what = "conversation: the same" if pair.words else f"picture: {bits}"
        cards += (
            f'<div class="card">{pictures}<div class="words"><div class="where"><span>{what}</span></div>'
            f'<div class="said small">{escape(report.where(pair.first))}</div>'
            f'<div class="said small">{escape(report.where(pair.other))}{more}</div></div></div>'
        )
    more = f"<p class='soft'>{len(groups) - PAIRS} more are in the JSON report.</p>" if len(groups) > PAIRS else ""
    return f'<div class="cards">{cards}</div>{more}' if cards else ""


def _picture(report, place):
    """The picture of a place; None when it cannot be read again."""
    try:
        return report.picture(place)
    except (ValueError, IndexError):
        return None


def _thumbnail(source, of: int = 1) -> str:
    """A picture as an <img>; nothing for what is no picture any more."""
    from eval.report.pictures import data_uri
    from vlm.errors import SampleError
    from vlm.media import load_image

    try:
        if source is None:
            return ""
        return f'<img alt="" src="{data_uri(load_image(source), THUMBNAIL if of == 1 else THUMBNAIL * 2 // 3)}">'
    except (SampleError, OSError):
        return ""


def _words(one) -> list[str]:
    return [word for word in (one.stage, "held out" if one.role == "eval" else "") if word]


def _small(one) -> str:
    words = ", ".join(_words(one))
    return f"<small>{escape(words)}</small>" if words else ""


def _large(number: int) -> str:
    for bound, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= bound:
            return f"{number / bound:.3g}{unit}"
    return str(number)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "pillow", "radio-vlm"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "Written by <code>radio-vlm check-data</code>. " + escape(", ".join(found))
