"""The second half of RADIO's proxy task: colour and motion of the shape in each cell of a clip's tubelets.

Without it the direction of motion stays at chance while documents fill the batches; trained after reading instead of
beside it, it damages reading.
"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.bases.cells import MERGE, PATCH
from training.data.synthetic.clips import COLOURS, DIRECTIONS, cell_labels, draw_clip
from training.data.synthetic.split_hash import split_of
from training.data.synthetic.videos import KINDS, content_of

SIZE, FRAMES, SHOWN = 64, 8, (0, 2, 4, 6)  # what the processor takes of an 8-frame clip at 2 frames a second
TUBELET = 2
SIDE = SIZE // (PATCH * MERGE)
BACKGROUNDS = (0, 20, 40, 60, 80)


class MotionTask:
    """Draws clips of the training split; `loss(model)` is the cross entropy of both labels over all cells."""

    def __init__(self, width: int, batch_size: int, seed: int):
        self.colours, self.motions = 1 + len(COLOURS), 2 + len(DIRECTIONS)
        self.head = nn.Sequential(
            nn.RMSNorm(MERGE**2 * width, eps=1e-5), nn.Linear(MERGE**2 * width, self.colours + self.motions)
        )
        self.batch_size, self.rng = batch_size, random.Random(f"motion/{seed}")

    def draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One clip (shown frames, SIZE, SIZE, 3) uint8 and the labels of its cells (tubelets, cells)."""
        kind = self.rng.choice(list(KINDS))
        while True:
            actors, answer = KINDS[kind](self.rng, SIZE, FRAMES)
            if split_of(repr(content_of(kind, actors, answer))) == "train":
                break
        clip = draw_clip(actors, FRAMES, SIZE, self.rng.choice(BACKGROUNDS))[list(SHOWN)]
        return clip, *cell_labels(actors, list(SHOWN[::TUBELET]), SIZE, PATCH * MERGE)

    def loss(self, model: nn.Module) -> torch.Tensor:
        drawn = [self.draw() for _ in range(self.batch_size)]
        clips, colours, motions = (torch.from_numpy(np.stack(part)) for part in zip(*drawn))
        logits = self.head(tubelet_cells(model, clips))
        found, moved = logits.split([self.colours, self.motions], -1)
        return F.cross_entropy(found.flatten(0, 1), colours.flatten()) + F.cross_entropy(
            moved.flatten(0, 1), motions.flatten()
        )


def tubelet_cells(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    """Features of the 2 x 2 patches of each cell: (N, T, H, W, 3) uint8 -> (N * T / 2, cells, 4 * D)."""
    pixels = clips.permute(0, 1, 4, 2, 3).flatten(0, 1).float() / 255.0
    tubelets = model.input_conditioner(pixels).reshape(-1, TUBELET * 3, SIZE, SIZE)
    hidden = model.encoder(model.embeddings(tubelets)).last_hidden_state[:, model.config.num_summary_tokens :]
    grid = hidden.view(len(hidden), SIDE, MERGE, SIDE, MERGE, -1).permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(len(hidden), SIDE**2, -1)
