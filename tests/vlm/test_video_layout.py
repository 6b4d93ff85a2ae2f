"""Placeholders of pruned videos: thinned by the processor, moved by the model; against plain loops over single rows."""

import random

import pytest
import torch

from tests.helpers.tiny_vlm import build_tiny
from vlm.errors import RadioVLMError, SampleError
from vlm.evs import kept_tokens, retention_mask, spread_tokens
from vlm.video_layout import move, relayout, thin_sample
from vlm.video_tokens import pool_frames, video_tokens


def plain_relayout(types: list[int], counts: list[int]) -> list[int]:
    """One row: words in order, behind each opener as many placeholders as it is due."""
    places, words = [i for i, t in enumerate(types) if t == 2], [i for i, t in enumerate(types) if t != 2]
    order = []
    for i in words:
        order.append(i)
        if types[i] == 3:
            count = counts.pop(0)
            order += places[:count]
            places = places[count:]
    return order


def random_row(rng: random.Random, length: int) -> tuple[list[int], list[int], list[int]]:
    """(types with first guesses, guesses, real counts) of a row with words, images and one or two pruned videos."""
    types, guesses, real = [0] * rng.randint(0, 3), [], []
    for _ in range(rng.randint(1, 2)):
        groups = rng.randint(2, 5)
        guess = [rng.randint(0, 4) for _ in range(groups)]
        counts = [0] * groups
        for _ in range(sum(guess)):
            counts[rng.randrange(groups)] += 1
        for count in guess:
            types += [0] * rng.randint(0, 2) + [3] + [2] * count + [0] * rng.randint(0, 2)
        types += [1] * rng.randint(0, 3)
        guesses, real = guesses + guess, real + counts
    return [0] * (length - len(types)) + types, guesses, real


def test_relayout_is_the_plain_loop_over_rows():
    rng = random.Random(0)
    moved = 0
    for _ in range(50):
        rows = [random_row(rng, 80) for _ in range(3)]
        types = torch.tensor([row[0] for row in rows])
        order = relayout(types, torch.tensor([count for row in rows for count in row[2]]))
        for found, (row, guess, real) in zip(order, rows):
            assert found.tolist() == plain_relayout(row, list(real))
            moved += guess != real
        assert torch.equal(order.sort(-1).values, torch.arange(80).expand(3, -1)), "nothing lost, nothing twice"
    assert moved > 100, "a control: the guess is mostly not what stays"


def test_relayout_refuses_counts_that_would_change_a_row():
    types = torch.tensor([[3, 2, 2, 0, 3, 2]])
    with pytest.raises(ValueError, match="other tokens in all"):
        relayout(types, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="3 groups.*2 places"):
        relayout(types, torch.tensor([1, 1, 1]))


def test_thinning_keeps_words_and_labels_and_marks_openers_of_pruned_videos_only():
    ids = torch.tensor([9, 5, 7, 7, 8, 5, 7, 7, 8, 5, 7, 7])
    types = torch.tensor([0, 0, 2, 2, 0, 0, 2, 2, 0, 0, 2, 2])
    sample = {"input_ids": ids, "mm_token_type_ids": types, "labels": torch.arange(12), "extra": 1}
    out = thin_sample(sample, [[2, 2], [2]], [[2, 0], [2]])
    assert out["input_ids"].tolist() == [9, 5, 7, 7, 8, 5, 8, 5, 7, 7]
    assert out["mm_token_type_ids"].tolist() == [0, 3, 2, 2, 0, 3, 0, 0, 2, 2], "the whole video has no openers"
    assert out["labels"].tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert out["video_num_tokens"].tolist() == [2, 2] and out["extra"] == 1
    joined = {"input_ids": ids[:6], "mm_token_type_ids": torch.tensor([0, 0, 2, 2, 2, 2])}
    assert (thin_sample(joined, [[2, 2]], [[2, 1]])["mm_token_type_ids"] != 3).all(), "no words between the frames"
    with pytest.raises(ValueError, match="expected 4"):
        thin_sample(sample, [[2, 2]], [[2, 1]])


@pytest.mark.parametrize(("groups", "per_group", "rate"), [(1, 6, 0.9), (4, 6, 0.0), (8, 5, 0.75), (64, 3, 0.99)])
def test_the_guess_has_as_many_tokens_as_stay(groups, per_group, rate):
    keep = kept_tokens(groups, per_group, rate)
    guess = spread_tokens(groups, per_group, keep)
    assert len(guess) == groups and sum(guess) == keep and max(guess) <= per_group
    assert keep == max(per_group, int(groups * per_group * (1 - rate)))


def test_fewer_than_one_frame_cannot_stay():
    with pytest.raises(ValueError, match="at least one frame"):
        retention_mask(torch.randn(3, 4, 8), 3)


def test_averaging_is_the_mean_of_each_run_of_frames():
    tokens = torch.randn(7, 3, 5)
    want = torch.stack([tokens[0:3].mean(0), tokens[3:6].mean(0), tokens[6]])
    torch.testing.assert_close(pool_frames(tokens, 3), want)
    out, numbers, counts = video_tokens(tokens.flatten(0, 1), [(4, 3), (3, 3)], 2)
    assert numbers == [6, 6] and counts == [None, None]
    torch.testing.assert_close(out[6:9], tokens[4:6].mean(0))


VIDEO = {"max_frames": 8, "max_num_patches": 64, "temporal_patch_size": 1}


def clip(frames: int, seed: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """A still picture on which one corner changes from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8).repeat(frames, 1, 1, 1)
    still[:, :, :32, :32] = torch.randint(0, 256, (frames, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return still


def question(*clips) -> list[dict]:
    return [
        {"role": "user", "content": [*({"type": "video", "video": c} for c in clips), {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "yes"},
    ]


@pytest.fixture(scope="module")
def tiny():
    geometry = {"min_num_patches": 4, "max_num_patches": 256}
    return build_tiny(geometry=geometry, video=VIDEO)


def test_a_pruned_and_a_whole_video_share_a_batch(tiny):
    """Loss and logits of the mixed batch equal those of its samples alone, in both orders."""
    model, processor = tiny
    samples = [
        processor.encode(question(clip(6, 0), clip(3, 1)), pruning_rate=0.6),
        processor.encode(question(clip(4, 2)), pruning_rate=0.0),
        processor.encode([{"role": "user", "content": "hm"}, {"role": "assistant", "content": "ok"}]),
    ]
    assert len(samples[0]["input_ids"]) < len(processor.encode(question(clip(6, 0), clip(3, 1)))["input_ids"])
    with torch.inference_mode():
        for order in (samples, samples[::-1]):
            both = model(**processor.collate(order), return_logits=True)
            for row, sample in enumerate(order):
                alone = model(**processor.collate([sample]), return_logits=True)
                length = len(sample["input_ids"])
                torch.testing.assert_close(both.logits[row, :length], alone.logits[0], atol=2e-5, rtol=1e-4)


def test_a_pruned_video_is_the_whole_one_with_positions_left_out(tiny):
    """Slow twin: the full prompt, full features, then dropping the positions that the mask drops."""
    model, processor = tiny
    frames = clip(6, 3)
    full = processor.collate([processor.encode(question(frames))])
    thin = processor.collate([processor.encode(question(frames), pruning_rate=0.6)])
    with torch.inference_mode():
        grid = full["video_grid_thw"]
        tokens = model.get_video_features(full["pixel_values_videos"], grid)
        mask = retention_mask(tokens.view(int(grid[0, 0]), -1, tokens.shape[-1]), int(thin["video_num_tokens"][0]))
        embeds = model.get_input_embeddings()(full["input_ids"])
        places = full["mm_token_type_ids"] == 2
        embeds[places] = tokens
        stays = torch.ones_like(places)
        stays[places] = mask.flatten()
        want = model.language_model(inputs_embeds=embeds[stays][None]).logits
        got = model(**thin, return_logits=True).logits
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
    assert mask.sum(-1).tolist() != spread_tokens(len(mask), mask.shape[1], int(mask.sum())), "something had to move"


def test_generation_of_a_pruned_video_goes_on_from_what_the_model_read(tiny):
    model, processor = tiny
    asked = question(clip(6, 4))[:1]
    batch = processor.collate([processor.encode(asked, add_generation_prompt=True, pruning_rate=0.7)])
    out = model.generate(**batch, max_new_tokens=3, do_sample=False)
    again = model.generate(**batch, max_new_tokens=3, do_sample=False, num_beams=2, num_return_sequences=2)
    length = batch["input_ids"].shape[1]
    assert sorted(out[0, :length].tolist()) == sorted(batch["input_ids"][0].tolist())
    assert len(again) == 2 and torch.equal(again[0, :length], out[0, :length])
    with torch.inference_mode():
        first = model(**batch, logits_to_keep=1).logits[0, -1].argmax()
    assert out[0, length] == first


def test_bad_numbers_of_kept_tokens_and_missing_types_are_named(tiny):
    model, processor = tiny
    batch = processor.collate([processor.encode(question(clip(6, 5)), pruning_rate=0.5)])
    for wrong in (torch.tensor([1]), torch.tensor([10_000]), torch.tensor([20, 20])):
        with pytest.raises(RadioVLMError, match="video_num_tokens"):
            model(**{**batch, "video_num_tokens": wrong})
    with pytest.raises(SampleError, match="mm_token_type_ids"):
        model(**{key: value for key, value in batch.items() if key != "mm_token_type_ids"})
    with pytest.raises(ValueError, match="pruning_rate=1.5"):
        processor.encode(question(clip(6, 5)), pruning_rate=1.5)
    for wrong in ({"pruning_rate": 2}, {"temporal_pool": 0}, {"fps": 0}, {"max_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            type(processor)(processor.image_processor, processor.tokenizer, video=wrong)


def test_tagged_text_prunes_too(tiny):
    _, processor = tiny
    whole, thin = (processor(text="<video>?", videos=[clip(6, 7)], pruning_rate=rate) for rate in (0.0, 0.5))
    assert thin["input_ids"].shape[1] < whole["input_ids"].shape[1]
    assert int(thin["video_num_tokens"]) == int((thin["mm_token_type_ids"] == 2).sum())


def test_tokens_without_fixed_places_are_not_pruned_whoever_asks():
    geometry = {"min_num_patches": 4, "max_num_patches": 256}
    model, processor = build_tiny(geometry=geometry, video=VIDEO, projector={"type": "token_merging"})
    batch = processor.collate([processor.encode(question(clip(4, 8)))])
    batch["video_num_tokens"] = batch["video_num_tokens"] - 1
    with pytest.raises(ValueError, match="token_merging"):
        model(**batch)


def test_averaged_frames_have_one_label_and_one_run_of_tokens():
    model, processor = build_tiny(
        geometry={"min_num_patches": 4, "max_num_patches": 256}, video={**VIDEO, "temporal_pool": 4}
    )
    encoded = processor.encode(question(clip(6, 6)))
    plain, whole = build_tiny(geometry={"min_num_patches": 4, "max_num_patches": 256}, video=VIDEO)
    every = whole.encode(question(clip(6, 6)))
    assert int((encoded["mm_token_type_ids"] == 2).sum()) * 3 == int((every["mm_token_type_ids"] == 2).sum())
    text = processor.tokenizer.decode(encoded["input_ids"])
    assert "Frame 1 and frame 2 and frame 3 and frame 4: " in text and "Frame 5 and frame 6: " in text
    with torch.inference_mode():
        got = model.get_video_features(encoded["pixel_values_videos"], encoded["video_grid_thw"])
        all_tokens = plain.get_video_features(every["pixel_values_videos"], every["video_grid_thw"])
    all_tokens = all_tokens.view(6, -1, all_tokens.shape[-1])
    want = torch.cat([all_tokens[:4].mean(0), all_tokens[4:].mean(0)])
    torch.testing.assert_close(got, want)
    model(**processor.collate([encoded]))
    assert model.config.fingerprint != plain.config.fingerprint


def test_move_takes_rows_and_nothing_else():
    order = torch.tensor([[1, 0, 2]])
    assert move(None, order) is None
    for wrong in (torch.ones(1, 1, 3, 3), {"full_attention": torch.ones(1, 3)}, torch.ones(1, 4)):
        with pytest.raises(ValueError, match="masks have the shape"):
            move(wrong, order)
    assert move(torch.tensor([[5, 6, 7]]), order).tolist() == [[6, 5, 7]]
