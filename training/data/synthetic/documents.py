"""The documents corpus: small pages of four kinds (receipt, form, table, bar chart) with labelled two-digit values.
Training records ask several questions a page or for a transcription; val and test records ask one question each.
A (kind, layout, label, value) combination belongs to exactly one split (``split_hash``), so nothing asked at test time
was ever printed on a training page.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from PIL import Image

from training.data.synthetic.folder import write_folder
from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import Fields, Layout, known_layouts
from training.data.synthetic.registry import check_split, register_corpus
from training.data.synthetic.split_hash import split_of

LABELS = ("TAX", "NET", "FEE", "PAY", "VAT", "DUE", "CUT", "LOT")
VALUES = tuple(str(v) for v in range(10, 100))
READ_PROMPT = "Read."


@cache
def allowed_values(kind: str, layout: str, label: str, split: str) -> tuple[str, ...]:
    """The values that may stand beside ``label`` in this layout in this split."""
    return tuple(v for v in VALUES if split_of(kind, layout, label, v) == split)


def draw_fields(rng: random.Random, layout: Layout, split: str) -> Fields:
    """Distinct labels with distinct values, all of them content of ``split``."""
    while True:
        labels = rng.sample(LABELS, layout.fields)
        fields = [(label, rng.choice(allowed_values(layout.kind, layout.name, label, split))) for label in labels]
        if len({value for _, value in fields}) == len(fields):
            return fields


def transcription(fields: Fields) -> str:
    """The page in words: one line a field, in reading order."""
    return "\n".join(f"{label} {value}" for label, value in fields)


def question(label: str) -> str:
    """How a field is asked for."""
    return f"{label}?"


def make_page(rng: random.Random, layout: Layout, split: str) -> tuple[Canvas, Fields]:
    """One page (``canvas.image``: RGB, 96 × 128) and the fields written on it."""
    fields = draw_fields(rng, layout, split)
    page = Canvas(rng, layout.sizes)
    layout.draw(page, fields)
    return page, fields


def turns(image: str, exchanges: list[tuple[str, str]]) -> list[dict]:
    """Chat messages; the image stands in the first user turn."""
    messages: list[dict] = []
    for index, (asked, answer) in enumerate(exchanges):
        content = [{"type": "image", "image": image}] if index == 0 else []
        messages.append({"role": "user", "content": [*content, {"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def training_exchanges(rng: random.Random, fields: Fields, read_share: float) -> list[tuple[str, str]]:
    """All fields of the page asked in random order, with a transcription before them in a share of the records."""
    exchanges = [(question(label), value) for label, value in fields]
    rng.shuffle(exchanges)
    if rng.random() < read_share:
        exchanges.insert(0, (READ_PROMPT, transcription(fields)))
    return exchanges


def make_record(split: str, seed: int, index: int, read_share: float) -> tuple[dict, Image.Image]:
    """Record number ``index``; the same arguments always give the same record. Kinds and layouts take turns."""
    rng = random.Random(f"documents/{split}/{seed}/{index}")
    kinds = list(known_layouts().items())
    kind, layouts = kinds[index % len(kinds)]
    layout = layouts[index // len(kinds) % len(layouts)]
    page, fields = make_page(rng, layout, split)
    name = f"images/{index:06d}.png"
    if split == "train":
        exchanges = training_exchanges(rng, fields, read_share)
    else:
        label, value = rng.choice(fields)
        exchanges = [(question(label), value)]
    record = {
        "id": f"documents-{split}-{seed}-{index:06d}",
        "source": "synthetic_documents",
        "messages": turns(name, exchanges),
        "meta": {
            "task": "documents",
            "kind": kind,
            "layout": layout.name,
            "answers": [exchanges[-1][1]],
            "group": f"{index:06d}",
            "fields": fields,
        },
    }
    return record, page.image


def _write_part(out: Path, split: str, seed: int, start: int, stop: int, read_share: float) -> list[dict]:
    records = []
    for index in range(start, stop):
        record, image = make_record(split, seed, index, read_share)
        image.save(out / record["messages"][0]["content"][0]["image"], compress_level=1)
        records.append(record)
    return records


def _parts(n: int, processes: int) -> Iterator[tuple[int, int]]:
    step = -(-n // processes)
    for start in range(0, n, step):
        yield start, min(n, start + step)


@register_corpus("documents")
def write(out: Path, split: str, seed: int, n: int, read_share: float = 0.2, processes: int = 1) -> None:
    """Writes a dataset folder of ``n`` pages.

    Args:
        out: the folder (made if missing). split: train, val or test. seed: another seed, other pages.
        n: number of records; in val and test each is one question, the kinds in turn.
        read_share: share of the training records that begin with a transcription. processes: drawn in parallel.
    """
    check_split(split)
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    known_layouts()
    if processes > 1 and n > 1:
        with ProcessPoolExecutor(processes) as pool:
            jobs = [pool.submit(_write_part, out, split, seed, a, b, read_share) for a, b in _parts(n, processes)]
            records = [record for job in jobs for record in job.result()]
    else:
        records = _write_part(out, split, seed, 0, n, read_share)
    write_folder(out, "documents", split, seed, records)
