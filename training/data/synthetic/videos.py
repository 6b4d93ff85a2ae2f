"""The video corpus: mp4 clips of moving shapes with questions on direction, order and count.

- direction: one shape drifts left, right, up or down at constant speed on a torus → the direction. Nothing but the
  order of the frames tells it: start places are uniform and the set of places is the same forwards and backwards.
- order: one object is seen in the first part of the clip, another in the second → the colour of the first.
- count: one to three shapes drift, and as many as two stand still → how many move.

Of `n` validation or test records half (rounded up) ask for the direction, the rest is shared by order and count; of the
training records two thirds do, because motion is what takes longest to learn. Every record has one question.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.data.synthetic.clips import COLOURS, DIRECTIONS, SHAPES, Actor, draw_clip, write_mp4
from training.data.synthetic.folder import generator, write_folder
from training.data.synthetic.registry import register_corpus
from training.data.synthetic.split_hash import split_of

QUESTIONS = {"direction": "Direction?", "order": "First?", "count": "How many move?"}
CELL = 4  # start places in the same cell of this many pixels count as the same content
Scene = tuple[list[Actor], str]


def _actor(rng: random.Random, size: int, **fixed: Any) -> Actor:
    """A random actor; `fixed` sets what the question asks about."""
    values = {
        "shape": rng.choice(SHAPES),
        "colour": rng.choice(tuple(COLOURS)),
        "x": rng.randrange(size),
        "y": rng.randrange(size),
        "radius": rng.choice((size // 8, size // 6)),
    }
    return Actor(**(values | fixed))


def _velocity(rng: random.Random, direction: str, size: int) -> tuple[int, int]:
    """Pixels a written frame: 1/12 to 1/9 of the picture, so every second frame stays well below half a turn."""
    speed = rng.randint(size // 12, size // 9)
    return DIRECTIONS[direction][0] * speed, DIRECTIONS[direction][1] * speed


def _direction(rng: random.Random, size: int, frames: int) -> Scene:
    answer = rng.choice(tuple(DIRECTIONS))
    return [_actor(rng, size, velocity=_velocity(rng, answer, size))], answer


def _order(rng: random.Random, size: int, frames: int) -> Scene:
    # The change lies on an even frame in the middle third: halves of the frames see it too.
    change = rng.choice([t for t in range(2, frames - 1, 2)])
    first, second = rng.sample(tuple(COLOURS), 2)
    return [_actor(rng, size, colour=first, last=change), _actor(rng, size, colour=second, first=change)], first


def _count(rng: random.Random, size: int, frames: int) -> Scene:
    moving, still = rng.randint(1, 3), rng.randint(0, 2)
    # One actor to a quarter row, all moving along it: they never meet.
    rows = rng.sample(range(4), min(moving + still, 4))
    colours = rng.sample(tuple(COLOURS), len(rows))
    actors = []
    for index, (row, colour) in enumerate(zip(rows, colours)):
        velocity = _velocity(rng, rng.choice(("left", "right")), size) if index < moving else (0, 0)
        place = {"y": row * size // 4 + size // 8, "radius": size // 10}
        actors.append(_actor(rng, size, colour=colour, velocity=velocity, **place))
    return actors, str(moving)


KINDS: dict[str, Callable[[random.Random, int, int], Scene]] = {
    "direction": _direction,
    "order": _order,
    "count": _count,
}


TEST_KINDS = "direction,order,direction,count"
TRAIN_KINDS = "direction,direction,order,direction,direction,count"


def kinds_of(n: int, kinds: str = TEST_KINDS) -> list[str]:
    """The kind of each of `n` records: `kinds`, a comma-separated cycle, over and over."""
    cycle = kinds.split(",")
    for kind in cycle:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r} of video question; known: {', '.join(KINDS)}")
    return [cycle[i % len(cycle)] for i in range(n)]


def content_of(kind: str, actors: list[Actor], answer: str) -> tuple:
    """What two records must share to count as the same content; the background does not count."""
    places = ((a.shape, a.colour, a.x // CELL, a.y // CELL, a.velocity, a.first, a.last) for a in actors)
    return (kind, answer, *places)


def records(
    out: Path, split: str, seed: int, n: int, frames: int, size: int, fps: int, kinds: str
) -> Iterator[dict[str, Any]]:
    """Write one mp4 a record below `out/videos` and yield the records."""
    rng = generator("videos", split, seed)
    (out / "videos").mkdir(parents=True, exist_ok=True)
    seen: set[tuple] = set()
    for index, kind in enumerate(kinds_of(n, kinds)):
        while True:
            actors, answer = KINDS[kind](rng, size, frames)
            content = content_of(kind, actors, answer)
            if split_of(repr(content)) == split and content not in seen:
                break
        seen.add(content)
        name = f"videos/{index:06d}.mp4"
        write_mp4(out / name, draw_clip(actors, frames, size, rng.choice((0, 20, 40, 60, 80))), fps)
        yield {
            "id": f"videos-{split}-{seed}-{index:06d}",
            "source": "synthetic_videos",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "video", "video": name}, {"type": "text", "text": QUESTIONS[kind]}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ],
            "meta": {"task": "videos", "kind": kind, "answers": [answer], "group": f"{index:06d}"},
        }


@register_corpus("videos")
def write(
    out: Path, split: str, seed: int, n: int, *, frames: int = 8, size: int = 64, fps: int = 4, kinds: str = ""
) -> None:
    """Write `n` records of `split` to the folder `out`: `frames` frames of `size` × `size` pixels at `fps` each.

    `kinds`: the cycle of kinds, e.g. `direction,direction,order`; empty for the default of the split.
    """
    if frames < 4 or size % 16:
        raise ValueError(f"frames must be at least 4 and size a multiple of 16, not {frames} and {size}")
    out = Path(out)
    kinds = kinds or (TRAIN_KINDS if split == "train" else TEST_KINDS)
    write_folder(out, "videos", split, seed, records(out, split, seed, n, frames, size, fps, kinds))
