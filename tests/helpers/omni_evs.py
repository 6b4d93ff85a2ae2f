"""EVS by plain Python loops over numbers: the twin of `vlm.evs`, `vlm.video_tokens` and `vlm.video_layout`.

Every token is compared with the one at the same place of the frame before; the first frame stays; of all others those
stay that changed most, an earlier one first among equals. Frames may be rectangular, prompts hold any text among them.
"""

import math
from collections.abc import Callable, Sequence

import torch

Vector = Sequence[float]


def cosine(a: Vector, b: Vector) -> float:
    dot = sum(x * y for x, y in zip(a, b))
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return dot / max(lengths, 1e-8)


def changed(frames: list[list[Vector]], frame: int, place: int) -> float:
    """How much one token differs from the frame before; infinite in the first frame."""
    return math.inf if frame == 0 else 1 - cosine(frames[frame][place], frames[frame - 1][place])


def without_first_frame(frames: list[list[Vector]], frame: int, place: int) -> float:
    """A wrong rule: the first frame counts as unchanged."""
    return 0.0 if frame == 0 else changed(frames, frame, place)


def since_the_first(frames: list[list[Vector]], frame: int, place: int) -> float:
    """A wrong rule: compared with the first frame instead of the one before."""
    return math.inf if frame == 0 else 1 - cosine(frames[frame][place], frames[0][place])


def slow_mask(tokens: torch.Tensor, rate: float, rule: Callable = changed) -> list[list[bool]]:
    """`(T, N, D)` tokens of one video -> which stay, `[frame][place]`."""
    frames = tokens.double().tolist()
    per_frame = len(frames[0])
    keep = max(per_frame, int(len(frames) * per_frame * (1 - rate)))
    scored = [(rule(frames, t, i), t, i) for t in range(len(frames)) for i in range(per_frame)]
    scored.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    stays = {(t, i) for _, t, i in scored[:keep]}
    return [[(t, i) in stays for i in range(per_frame)] for t in range(len(frames))]


def slow_rows(
    rows: list[list], table: Callable[[int], Vector], rate: float, rule: Callable = changed
) -> list[list[tuple]]:
    """Embeddings of prompts, pruned videos in their places.

    Args:
        rows: per prompt its parts: an int is a text token, a tensor (N, D) an image, a list of them a video's frame
            tensors with the ints of its label before each: `[[7, 8], frame], [[7, 9], frame], ...`.
        table: embedding of a text token.

    Returns:
        Per row `(label, vector)` in order; the label is the token of a word, -100 of a picture's tokens.
    """
    out = []
    for row in rows:
        vectors = []
        for part in row:
            if isinstance(part, int):
                vectors.append((part, table(part)))
            elif isinstance(part, torch.Tensor):
                vectors += [(-100, token) for token in part]
            else:
                stays = slow_mask(torch.stack([frame for _, frame in part]), rate, rule)
                for (label, frame), kept in zip(part, stays):
                    vectors += [(token, table(token)) for token in label]
                    vectors += [(-100, token) for token, stay in zip(frame, kept) if stay]
        out.append(vectors)
    return out
