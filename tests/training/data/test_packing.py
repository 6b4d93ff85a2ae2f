"""Packing: rows are full, balanced, whole and deterministic, and nobody waits for ever."""

import itertools

import numpy as np
import pytest

from training.data.packing import Item, PackingStatistics, balanced, best_fit, fill, pack


def draw(count: int, seed: int = 0, longest: int = 4096, first: int = 0, media: float = 0.0) -> list[Item]:
    """Log-normal lengths of median 300, sigma 0.9; a share `media` of the samples is two thirds pictures."""
    rng = np.random.default_rng(seed)
    tokens = np.clip(np.round(300 * np.exp(0.9 * rng.standard_normal(count))), 2, longest).astype(int).tolist()
    pictures = (rng.random(count) < media).tolist()
    return [Item(first + i, n, n * 2 // 3 * has) for i, (n, has) in enumerate(zip(tokens, pictures))]


def rounds(count: int, buffer: int, pack_length: int, media: float = 0.0):
    """Rows of each round of a packer that is kept full."""
    waiting, number = [], 0
    for turn in range(count):
        waited = len(waiting)
        waiting += draw(buffer - waited, seed=turn, longest=pack_length, first=number, media=media)
        number += buffer - waited
        rows, left = pack(waiting, pack_length, waited)
        yield waiting, rows, left
        waiting = left


@pytest.mark.parametrize("buffer, media", [(1024, 0.0), (1024, 0.3), (256, 0.0)])
def test_rows_are_full_and_balanced(buffer, media):
    fills, spreads = [], []
    for _, rows, _ in rounds(8, buffer, 4096, media):
        loads = [sum(item.tokens for item in row) for row in rows]
        fills.append(fill(rows, 4096))
        spreads.append((max(loads) - min(loads)) / 4096)
    assert min(fills) >= 0.97 and np.mean(fills) >= 0.985
    assert np.mean(spreads) <= 0.05
    assert max(sum(item.tokens for item in row) for row in rows) <= 4096


def test_media_tokens_are_spread_over_the_rows():
    items = draw(1024, media=0.3)
    blind = [Item(item.number, item.tokens) for item in items]
    media = {item.number: item.media_tokens for item in items}

    def spread(rows) -> float:
        sums = [sum(media[item.number] for item in row) for row in rows]
        return float(np.std(sums) / np.mean(sums))

    assert spread(pack(items, 16384)[0]) < 0.6 * spread(pack(blind, 16384)[0])


def test_every_sample_comes_once_and_whole_and_the_oldest_first():
    seen: list[int] = []
    for waiting, rows, left in rounds(6, 64, 2048):
        laid_out = [item for row in rows for item in row]
        assert sorted(item.number for item in [*laid_out, *left]) == sorted(item.number for item in waiting)
        assert rows[0][0] == waiting[0], "the oldest waiting sample goes into the next row"
        assert [row[0].number for row in rows] == sorted(row[0].number for row in rows)
        assert all(row == sorted(row, key=lambda item: item.number) for row in rows)
        seen += [item.number for item in laid_out]
    assert len(seen) == len(set(seen)) and set(range(max(seen) - 128)) <= set(seen)


def test_nobody_starves_among_samples_that_fit_badly():
    """Samples that fill most of a row leave room for few others; what waits is first in turn."""
    rng = np.random.default_rng(0)
    waiting, number, oldest = [], 0, []
    for _ in range(200):
        waited = len(waiting)
        waiting += [Item(number + i, int(n)) for i, n in enumerate(rng.choice([10, 900, 600, 520, 340], 32 - waited))]
        number += 32 - waited
        _, waiting = pack(waiting, 1000, waited)
        oldest.append(number - min((item.number for item in waiting), default=number))
    assert max(oldest) <= 3 * 32


def test_too_few_tokens_for_a_row_wait():
    items = [Item(0, 100), Item(1, 200)]
    assert pack(items, 1000) == ([], items)


def test_best_fit_steps_in_where_balance_fills_badly():
    """Six into two rows: balance gives 700 and 700 and the 300s wait; best fit fills both."""
    items = [Item(i, n) for i, n in enumerate([400, 300, 300, 400, 300, 300])]
    assert fill(balanced(items, 2, 1000)[0], 1000) < 0.97 < fill(best_fit(items, 2, 1000)[0], 1000)
    rows, left = pack(items, 1000)
    assert sorted(sum(item.tokens for item in row) for row in rows) == [1000, 1000] and not left


def exact(lengths: tuple[int, ...], rows: int, pack_length: int) -> int:
    """Most tokens that fit, by trying every place of every sample."""
    best = 0
    for places in itertools.product(range(-1, rows), repeat=len(lengths)):
        loads = [0] * rows
        for place, length in zip(places, lengths):
            if place >= 0:
                loads[place] += length
        if max(loads) <= pack_length:
            best = max(best, sum(loads))
    return best


def first_fit(items: list[Item], rows: int, pack_length: int) -> int:
    """The plain twin: samples in order of age, each into the first row with room; tokens laid out."""
    loads = [0] * rows
    for item in items:
        place = next((i for i, load in enumerate(loads) if load + item.tokens <= pack_length), None)
        if place is not None:
            loads[place] += item.tokens
    return sum(loads)


def test_small_cases_against_trying_everything():
    worst = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        items = [Item(i, int(n)) for i, n in enumerate(rng.integers(5, 60, 7))]
        rows, _ = pack(items, 100)
        count = sum(item.tokens for item in items) // 100
        packed = sum(item.tokens for row in rows for item in row)
        assert packed >= 0.75 * exact(tuple(item.tokens for item in items), count, 100)
        worst.append(packed / exact(tuple(item.tokens for item in items), count, 100))
    assert np.mean(worst) > 0.93


def test_as_full_as_first_fit_on_long_buffers():
    for seed in range(10):
        items = draw(512, seed)
        rows, _ = pack(items, 4096)
        count = sum(item.tokens for item in items) // 4096
        assert sum(item.tokens for row in rows for item in row) >= 0.985 * first_fit(items, count, 4096)


def test_statistics():
    statistics = PackingStatistics(1000)
    statistics.add([Item(0, 600, 100), Item(1, 300)])
    statistics.add([Item(2, 900, 500)])
    assert statistics.report(waiting=7) == {
        "pack_length": 1000, "packs": 2, "samples": 3, "samples_per_pack": 1.5, "fill": 0.9, "media_share": 0.3,
        "waiting": 7,
    }  # fmt: skip
