"""Trains the embedded expert `FINDINGS` on synthetic chest X-rays and measures it on patients it has not seen.

    python -m training.experts.chest_xray_tiny --out runs/demo/experts/chest_xray_tiny

The folder then holds `model.safetensors` and `card.json` (labels, seed, data, accuracy on held-out patients), and
`ChestXrayTiny(folder)` in `vlm.experts` opens it.
"""

import argparse
import contextlib
import json
import logging
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.data.synthetic.split_hash import split_of
from training.data.synthetic.xrays import LABELS, random_patient, random_xray, render

logger = logging.getLogger(__name__)

WIDTH, SIZE, BATCH = 16, 64, 64
PICTURES_PER_PATIENT = 4


def pictures(split: str, patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 1, 64, 64) and labels (N, 3) of `patients` patients of a split; no patient is in two splits."""
    rng = random.Random(f"xrays {split} {seed}")
    images, labels = [], []
    while len(images) < patients * PICTURES_PER_PATIENT:
        patient = random_patient(rng)
        if split_of(patient.content()) != split:
            continue
        for _ in range(PICTURES_PER_PATIENT):
            item = random_xray(rng, patient)
            # 8 bits, as the expert reads them from a file
            images.append(np.round(render(item, rng.getrandbits(32), SIZE) * 255) / 255)
            labels.append([item.findings()[label] for label in LABELS])
    return np.stack(images)[:, None].astype(np.float32), np.asarray(labels, dtype=np.float32)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: with so small a network two cost more than they bring, on a busy machine twenty times more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(out: Path, seed: int = 0, patients: int = 300, epochs: int = 6, test_patients: int = 100) -> dict[str, Any]:
    """Train, measure, write the folder `out`; returns the card. About ten seconds on two cores.

    `card["held_out"]`: accuracy per finding and for all of them together, on test patients.
    """
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import binary_cross_entropy_with_logits

    from vlm.experts.chest_xray_tiny import FILES, FORMAT_VERSION, build_network
    from vlm.experts.chest_xray_tiny import LABELS as EXPERT_LABELS

    if LABELS != EXPERT_LABELS:
        raise ValueError("the drawings and the expert do not name the same findings")
    start = time.perf_counter()
    pixels, labels = (torch.from_numpy(array) for array in pictures("train", patients, seed))
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(len(LABELS), WIDTH)
        steps = epochs * -(-len(pixels) // BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(pixels)).split(BATCH):
                loss = binary_cross_entropy_with_logits(network(pixels[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    network.eval()
    pixels, labels = (torch.from_numpy(array) for array in pictures("test", test_patients, seed))
    with one_thread(), torch.inference_mode():
        right = ((network(pixels) > 0) == (labels > 0.5)).float()
    held_out = dict(zip(LABELS, (round(value, 4) for value in right.mean(0).tolist())))
    held_out |= {"mean": round(right.mean().item(), 4), "patients": test_patients, "pictures": len(pixels)}
    card = {
        "expert": "FINDINGS", "format_version": FORMAT_VERSION, "labels": list(LABELS), "width": WIDTH, "seed": seed,
        "data": "synthetic chest X-ray drawings (training/data/synthetic/xrays.py); no patient",
        "patients": patients, "epochs": epochs, "held_out": held_out,
        "seconds": round(time.perf_counter() - start, 1),
        "notice": "research software, not for clinical use",
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / FILES[0])
    (out / FILES[1]).write_text(json.dumps(card, indent=2) + "\n")
    logger.info("expert FINDINGS: %s of held-out findings right, %.0f s; %s", held_out["mean"], card["seconds"], out)
    return card


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the embedded chest X-ray expert on synthetic images.")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and card")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(args.out, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
