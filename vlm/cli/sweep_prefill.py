"""How long a prompt takes until the first token could be said, for several models in turn. Not a command itself.

Encoding (opening, resizing, patches, prompt) and the forward pass are timed apart, one prompt at a time, on one thread,
for prompts of one page and of many; the models take turns on every prompt, so that whatever else the machine does meets
all of them alike.
"""

import json
import statistics
import time
from pathlib import Path

PROMPTS, ROUNDS = 24, 5
DOCUMENT_PAGES, DOCUMENTS = 16, 6


def prompts(folder: Path, pages: int, count: int) -> list[list[dict]]:
    """`count` prompts, each of `pages` pages of a dataset folder and the first question on the last of them.

    A folder with too few pages is gone through again.
    """
    firsts = []
    with (folder / "records.jsonl").open(encoding="utf-8") as file:
        for line in file:
            firsts.append(json.loads(line)["messages"][0]["content"])
            if len(firsts) == pages * count:
                break
    found = []
    for start in range(0, pages * count, pages):
        chosen = [firsts[place % len(firsts)] for place in range(start, start + pages)]
        images = [{**item, "image": str(folder / item["image"])} for c in chosen for item in c if "image" in item]
        found.append([{"role": "user", "content": [*images, *(item for item in chosen[-1] if "image" not in item)]}])
    return found


def measure(
    models: dict[str, Path], folder: Path, count: int = PROMPTS, documents: int = DOCUMENTS, rounds: int = ROUNDS
) -> dict[str, dict]:
    """For each model folder by name: milliseconds (medians over prompts and rounds) and tokens of a page (mean).

    Args:
        folder: A dataset of one page a record.
        count, documents: Prompts of one page, and of `DOCUMENT_PAGES`.

    Returns:
        name -> tokens_per_page, patches_per_page, encode_ms, forward_ms, prefill_ms, and the same times with
        `document_` before them for prompts of `document_pages` pages.
    """
    import torch

    from vlm.cli.loading import load_model, load_processor

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = {name: (load_model(str(path), "cpu"), load_processor(str(path))) for name, path in models.items()}
        single = in_turn(opened, prompts(folder, 1, count), rounds)
        many = in_turn(opened, prompts(folder, DOCUMENT_PAGES, documents), rounds)
    finally:
        torch.set_num_threads(before)
    facts = {"prefill_prompts": count, "prefill_rounds": rounds, "document_pages": DOCUMENT_PAGES}
    return {
        name: facts
        | {"tokens_per_page": single[name]["tokens"], "patches_per_page": single[name]["patches"]}
        | {key: value for key, value in single[name].items() if key.endswith("_ms")}
        | {f"document_{key}": value for key, value in many[name].items() if key.endswith("_ms")}
        for name in opened
    }


def in_turn(opened: dict[str, tuple], asked: list[list[dict]], rounds: int) -> dict[str, dict]:
    """Times of every model on every prompt, `rounds` times behind one round that warms up and counts tokens."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in opened}
    sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in opened}
    names = list(opened)
    for turn in range(rounds + 1):
        for place, messages in enumerate(asked):
            first = (turn + place) % len(names)
            for name in names[first:] + names[:first]:
                encode, forward, size = one(*opened[name], messages)
                if turn:
                    times[name].append((encode, forward))
                else:
                    sizes[name].append(size)
    return {name: summary(times[name], sizes[name]) for name in names}


def one(model, processor, messages: list[dict]) -> tuple[float, float, tuple[int, int]]:
    """Seconds of encoding and of the forward pass; (visual tokens, patches) of the prompt."""
    import torch

    from vlm.cli.token_inputs import visual_count

    started = time.perf_counter()
    batch = processor.collate([processor.encode(messages, add_generation_prompt=True)])
    encoded = time.perf_counter()
    with torch.inference_mode():
        model(**batch, logits_to_keep=1)
    done = time.perf_counter()
    visual = visual_count(batch["mm_token_type_ids"])
    return encoded - started, done - encoded, (visual, len(batch["pixel_values"]))


def summary(times: list[tuple[float, float]], sizes: list[tuple[int, int]]) -> dict[str, float]:
    visual, patches = (sum(column) / len(sizes) for column in zip(*sizes))
    return {
        "tokens": round(visual, 2),
        "patches": round(patches, 2),
        "encode_ms": round(1000 * statistics.median(encode for encode, _ in times), 3),
        "forward_ms": round(1000 * statistics.median(forward for _, forward in times), 3),
        "prefill_ms": round(1000 * statistics.median(encode + forward for encode, forward in times), 3),
    }
