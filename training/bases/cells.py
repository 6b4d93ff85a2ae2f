"""A page as the language model will one day see it: a grid of cells, one visual token each (two by two patches of 16).
The bases learn from it before encoder and language model ever meet: RADIO must say which characters stand in a cell,
and the language model reads pages whose cells are made of the embeddings of the words in them.
"""

from __future__ import annotations

import random

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from training.data.synthetic.documents import make_page
from training.data.synthetic.pages.canvas import HEIGHT, WIDTH, Canvas
from training.data.synthetic.pages.registry import Fields, Layout, known_layouts

PATCH, MERGE = 16, 2
SIDE = PATCH * MERGE
ROWS, COLUMNS = HEIGHT // SIDE, WIDTH // SIDE
SLOTS = 6  # characters or tokens kept of one cell, in reading order
SHIFT = 16  # the k-th token of a cell is rotated by k * SHIFT dimensions, so that their sum keeps the order


def all_layouts() -> list[Layout]:
    """Every layout of every kind."""
    return [layout for layouts in known_layouts().values() for layout in layouts]


def cell_strings(page: Canvas) -> list[str]:
    """What is written in each cell, row by row (ROWS * COLUMNS strings); a character belongs where its middle lies."""
    cells: list[list[tuple[int, float, str]]] = [[] for _ in range(ROWS * COLUMNS)]
    for char, x, y in page.marks:
        row, column = min(ROWS - 1, max(0, int(y // SIDE))), min(COLUMNS - 1, max(0, int(x // SIDE)))
        cells[row * COLUMNS + column].append((int(y - row * SIDE) // PATCH, x, char))
    return ["".join(char for _, _, char in sorted(cell)) for cell in cells]


def cell_codes(pages: list[Canvas]) -> torch.Tensor:
    """Character codes (pages, cells, SLOTS), 0 where there is none: the target of RADIO's proxy task."""
    codes = torch.zeros(len(pages), ROWS * COLUMNS, SLOTS, dtype=torch.long)
    for index, page in enumerate(pages):
        for cell, string in enumerate(cell_strings(page)):
            for slot, char in enumerate(string[:SLOTS]):
                codes[index, cell, slot] = ord(char)
    return codes


def cell_tokens(pages: list[Canvas], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Token ids (pages, cells, SLOTS), -1 where there is none."""
    ids = torch.full((len(pages), ROWS * COLUMNS, SLOTS), -1, dtype=torch.long)
    for index, page in enumerate(pages):
        for cell, string in enumerate(cell_strings(page)):
            tokens = tokenizer.backend_tokenizer.encode(string, add_special_tokens=False).ids if string else []
            for slot, token in enumerate(tokens[:SLOTS]):
                ids[index, cell, slot] = token
    return ids


def cell_vectors(tokens: torch.Tensor, embeddings: nn.Embedding, places: torch.Tensor) -> torch.Tensor:
    """One vector a cell (pages, cells, D): the rotated sum of its tokens' embeddings plus a code of its place."""
    looked_up = embeddings(tokens.clamp(min=0)) * (tokens >= 0).unsqueeze(-1)
    summed = sum(torch.roll(looked_up[:, :, slot], slot * SHIFT, -1) for slot in range(SLOTS))
    return summed + places


def place_codes(width: int, scale: float, seed: int) -> torch.Tensor:
    """Fixed random codes of row plus column (1, cells, width); stands in for the positions RADIO's features carry."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(ROWS, 1, width, generator=generator)
    columns = torch.randn(1, COLUMNS, width, generator=generator)
    return (scale * (rows + columns)).view(1, ROWS * COLUMNS, width)


def draw_pages(rng: random.Random, layouts: list[Layout], count: int) -> list[tuple[Canvas, Fields]]:
    """``count`` training pages, layouts at random."""
    return [make_page(rng, rng.choice(layouts), "train") for _ in range(count)]
