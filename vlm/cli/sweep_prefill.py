"""How long a page takes until the first token could be said, for several models in turn. Not a command itself.

Encoding (opening, resizing, patches, prompt) and the forward pass are timed apart, one page at a time, on one thread;
the models take turns on every page, so that whatever else the machine does meets all of them alike.
"""

import json
import statistics
import time
from pathlib import Path

PAGES, ROUNDS = 24, 5


def questions(folder: Path, limit: int) -> list[list[dict]]:
    """The first `limit` pages of a dataset folder, each with its first question, as messages."""
    found = []
    with (folder / "records.jsonl").open(encoding="utf-8") as file:
        for line in file:
            message = json.loads(line)["messages"][0]
            content = [
                item if item["type"] == "text" else {**item, "image": str(folder / item["image"])}
                for item in message["content"]
            ]
            found.append([{**message, "content": content}])
            if len(found) == limit:
                break
    return found


def measure(models: dict[str, Path], folder: Path, pages: int = PAGES, rounds: int = ROUNDS) -> dict[str, dict]:
    """For each model folder by name: milliseconds (medians over pages and rounds) and tokens of a page (mean).

    Returns:
        name -> tokens_per_page, patches_per_page, prompt_tokens, encode_ms, forward_ms, prefill_ms, pages, rounds.
    """
    import torch

    from vlm.cli.loading import load_model, load_processor

    asked = questions(folder, pages)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = {name: (load_model(str(path), "cpu"), load_processor(str(path))) for name, path in models.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in opened}
        sizes: dict[str, list[tuple[int, int, int]]] = {name: [] for name in opened}
        for turn in range(rounds + 1):  # the first round warms up and counts tokens
            for place, messages in enumerate(asked):
                names = list(opened)
                first = (turn + place) % len(names)
                for name in names[first:] + names[:first]:
                    encode, forward, size = _one(*opened[name], messages)
                    if turn:
                        times[name].append((encode, forward))
                    else:
                        sizes[name].append(size)
    finally:
        torch.set_num_threads(before)
    return {name: _summary(times[name], sizes[name], len(asked), rounds) for name in opened}


def _one(model, processor, messages: list[dict]) -> tuple[float, float, tuple[int, int, int]]:
    """Seconds of encoding and of the forward pass; (visual tokens, patches, tokens) of the prompt."""
    import torch

    started = time.perf_counter()
    batch = processor.collate([processor.encode(messages, add_generation_prompt=True)])
    encoded = time.perf_counter()
    with torch.inference_mode():
        model(**batch, logits_to_keep=1)
    done = time.perf_counter()
    visual = int((batch["mm_token_type_ids"] > 0).sum())
    return encoded - started, done - encoded, (visual, len(batch["pixel_values"]), batch["input_ids"].shape[1])


def _summary(times: list[tuple[float, float]], sizes: list[tuple[int, int, int]], pages: int, rounds: int) -> dict:
    visual, patches, tokens = (sum(column) / len(sizes) for column in zip(*sizes))
    return {
        "tokens_per_page": round(visual, 2),
        "patches_per_page": round(patches, 2),
        "prompt_tokens": round(tokens, 2),
        "encode_ms": round(1000 * statistics.median(encode for encode, _ in times), 3),
        "forward_ms": round(1000 * statistics.median(forward for _, forward in times), 3),
        "prefill_ms": round(1000 * statistics.median(encode + forward for encode, forward in times), 3),
        "pages": pages,
        "rounds": rounds,
    }
