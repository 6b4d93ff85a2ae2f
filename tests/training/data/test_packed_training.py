"""Packed training is padded training: the same loss and gradients from the same samples, whatever media they hold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llm import prepare_language_model
from tests.helpers.pdfs import write_pages
from tests.helpers.stage_runs import small_vlm
from training.data.collation import PackingCollator, PaddingCollator
from training.data.dataset import encode_sample
from training.data.sample import Sample


def samples(folder: Path) -> list[Sample]:
    """Text, pictures, clips and a document, answers of different lengths."""
    write_pages(folder / "x.pdf", 2)
    made = []
    for number in range(8):
        rng = np.random.default_rng(number)
        kind = ("text", "image", "video", "document")[number % 4]
        height, width = int(rng.integers(24, 64)), int(rng.integers(24, 64))
        frames = rng.integers(0, 256, (4, height, width, 3), dtype=np.uint8)
        media = {"image": frames[0], "video": frames, "document": "x.pdf"}
        content = [{"type": "text", "text": f"number {number}?"}]
        if kind != "text":
            content.insert(0, {"type": kind, kind: media[kind]})
        turns = [{"role": "user", "content": content},
                 {"role": "assistant", "content": [{"type": "text", "text": "word " * (1 + number)}]}]  # fmt: skip
        made.append(Sample(f"s{number}", kind, turns, base_dir=folder))
    return made


def gradients(model, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    inputs = {key: value for key, value in batch.items() if key != "sources"}
    loss = model.train()(**inputs).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def error(found: dict, wanted: dict) -> float:
    """Norm of the difference over the norm of all gradients together."""
    assert found.keys() == wanted.keys()
    gap = sum((found[name] - wanted[name]).double().square().sum() for name in wanted)
    return float((gap / sum(value.double().square().sum() for value in wanted.values())).sqrt())


@pytest.mark.parametrize("rate", [0.0, 0.6], ids=["whole videos", "pruned videos"])
@pytest.mark.parametrize(
    "layout", [[[0, 1, 2, 3, 4, 5, 6, 7]], [[2, 7, 0], [5, 3], [6, 1, 4]]], ids=["one row", "three rows"]
)
def test_one_step_of_packed_rows_is_one_step_of_padded_rows(tmp_path, layout, rate):
    model, processor = small_vlm()
    prepare_language_model(model.language_model)
    encoded = [encode_sample(sample, processor, pruning_rate=rate) for sample in samples(tmp_path)]
    order = [number for row in layout for number in row]
    padded = PaddingCollator(processor)([encoded[number] for number in order])
    packed = PackingCollator(processor)([[encoded[number] for number in row] for row in layout])
    assert packed["sample_ids"] == padded["sample_ids"]
    assert torch.equal(packed["video_num_tokens"], padded["video_num_tokens"])
    wanted_loss, wanted = gradients(model, padded)
    loss, found = gradients(model, packed)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert error(found, wanted) <= 1e-5
    blind = {key: value for key, value in packed.items() if key != "seq_idx"}
    loss, found = gradients(model, blind)
    assert abs(loss - wanted_loss) > 3e-5 * wanted_loss and error(found, wanted) > 1e-2, "samples that see each other"
