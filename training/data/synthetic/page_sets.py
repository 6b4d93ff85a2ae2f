"""The pages corpus: two to four pages in one conversation, and questions that name the page.

It is what stage 3 (long context) learns from and is asked about: the same label stands on several pages with different
values, so that the right page must be found, not just the right label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from training.data.synthetic.documents import draw_fields
from training.data.synthetic.folder import generator, write_folder
from training.data.synthetic.pages.canvas import Canvas
from training.data.synthetic.pages.registry import known_layouts
from training.data.synthetic.registry import register_corpus

FEWEST, MOST = 2, 4
QUESTIONS_IN_TRAINING = 4


def question(page: int, label: str) -> str:
    """How a field of page number ``page`` (from 1) is asked for."""
    return f"Page {page} {label}?"


def records(out: Path, rng: random.Random, split: str, seed: int, n: int) -> Iterator[dict]:
    """Draws the pages below ``out/images`` and yields the records."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    layouts = [layout for kind in known_layouts().values() for layout in kind]
    for index in range(n):
        names, facts = [], []
        for page in range(1, rng.randint(FEWEST, MOST) + 1):
            layout = rng.choice(layouts)
            fields = draw_fields(rng, layout, split)
            canvas = Canvas(rng, layout.sizes)
            layout.draw(canvas, fields)
            names.append(f"images/{index:06d}-{page}.png")
            canvas.image.save(out / names[-1], compress_level=1)
            facts += [(page, label, value) for label, value in fields]
        asked = rng.sample(facts, QUESTIONS_IN_TRAINING if split == "train" else 1)
        messages: list[dict] = []
        for turn, (page, label, value) in enumerate(asked):
            content = [{"type": "image", "image": name} for name in names] if turn == 0 else []
            messages.append({"role": "user", "content": [*content, {"type": "text", "text": question(page, label)}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": value}]})
        meta = {"task": "pages", "kind": f"{len(names)} pages", "answers": [asked[-1][2]], "group": f"{index:06d}"}
        name = f"pages-{split}-{seed}-{index:06d}"
        yield {"id": name, "source": "synthetic_pages", "messages": messages, "meta": meta}


@register_corpus("pages")
def write(out: Path, split: str, seed: int, n: int) -> None:
    """Writes a dataset folder of ``n`` conversations; in val and test each asks one question."""
    out = Path(out)
    write_folder(out, "pages", split, seed, records(out, generator("pages", split, seed), split, seed, n))
