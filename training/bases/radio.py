"""Makes the small RADIO encoder of the demo by a short proxy task.

    python training/bases/radio.py --out runs/demo/bases/radio --seconds 60 --seed 0

For every cell of two by two patches linear heads must say which characters stand in it, in reading order, and which
word they begin. The heads are thrown away; the encoder is saved as an ordinary RadioModel.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

# Running a script puts its own folder first on the path; the packages lie two levels up.
ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from transformers import RadioModel  # noqa: E402

from encoders.presets import VISION_PRESETS  # noqa: E402
from training.bases import cells, loop  # noqa: E402
from training.bases.motion import MotionTask  # noqa: E402
from training.bases.tokenizer import build_tokenizer  # noqa: E402

CHARACTERS = 128
CLIP_SHARE = 0.25  # of a batch; the rest are pages
MOTION_WEIGHT = 0.5
EMPTY_WEIGHT = 0.3  # most slots are empty; they count less
WORD_WEIGHT = 0.3


class ReadingHead(nn.Module):
    """Features of the patches (B, patches, D) to logits of characters (B, cells, SLOTS, CHARACTERS) and words
    (B, cells, words)."""

    def __init__(self, width: int, words: int):
        super().__init__()
        joined = cells.MERGE**2 * width
        self.norm = nn.RMSNorm(joined, eps=1e-5)
        self.characters = nn.Linear(joined, cells.SLOTS * CHARACTERS)
        self.words = nn.Linear(joined, words)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, _, width = features.shape
        merge, rows, columns = cells.MERGE, cells.ROWS, cells.COLUMNS
        grid = features.view(batch, rows, merge, columns, merge, width).permute(0, 1, 3, 2, 4, 5)
        joined = self.norm(grid.reshape(batch, rows * columns, -1))
        characters = self.characters(joined).view(batch, rows * columns, cells.SLOTS, CHARACTERS)
        return characters, self.words(joined)


class ReadingTask:
    """Batches of pages and the loss of the proxy task."""

    def __init__(self, model: nn.Module, head: ReadingHead, batch_size: int, seed: int):
        self.model, self.head, self.batch_size = model, head, batch_size
        self.rng = random.Random(f"radio/{seed}")
        self.layouts = cells.all_layouts()
        self.tokenizer = build_tokenizer()
        self.weight = torch.ones(CHARACTERS)
        self.weight[0] = EMPTY_WEIGHT

    def loss(self, done: float) -> tuple[torch.Tensor, str]:
        """Cross entropy of characters and first words, and the share of right characters as a note."""
        pages = [page for page, _ in cells.draw_pages(self.rng, self.layouts, self.batch_size)]
        pixels = torch.from_numpy(np.stack([np.asarray(page.image) for page in pages]))
        pixels = pixels.permute(0, 3, 1, 2).float() / 255.0
        characters, words = self.head(self.model(pixels).features)
        codes, tokens = cells.cell_codes(pages), cells.cell_tokens(pages, self.tokenizer)[:, :, 0]
        written = codes > 0
        right = (characters.argmax(-1) == codes)[written].float().mean().item()
        loss = F.cross_entropy(characters.flatten(0, 2), codes.flatten(), weight=self.weight)
        loss = loss + WORD_WEIGHT * F.cross_entropy(words.flatten(0, 1), tokens.flatten(), ignore_index=-1)
        return loss, f"right {right:.2f}"


def make(options) -> list[float]:
    """Trains and saves the encoder; returns the losses."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    model = RadioModel(VISION_PRESETS["tiny"].config()).train()
    head = ReadingHead(model.config.hidden_size, words=len(build_tokenizer()))
    clips = max(1, round(options.batch_size * CLIP_SHARE))
    reading = ReadingTask(model, head, options.batch_size - clips, options.seed)
    motion = MotionTask(model.config.hidden_size, clips, options.seed)

    def loss(done: float) -> tuple[torch.Tensor, str]:
        read, note = reading.loss(done)
        return read + MOTION_WEIGHT * motion.loss(model), note

    heads = {"model": model, "head": head, "motion": motion.head}
    losses = loop.train("RADIO", nn.ModuleDict(heads), loss, options)
    model.save_pretrained(options.out)
    return losses


def main(argv: list[str] | None = None) -> int:
    make(loop.arguments("Train the small RADIO encoder of the demo to read characters.").parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
