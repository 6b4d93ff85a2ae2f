"""Pruned videos: the masks are those of transformers' `compute_retention_mask` wherever that one is right, and the
prompts those of plain loops where it is not: rectangular grids, several videos a prompt, batches larger than one."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.nemotron_h_omni.modeling_nemotron_h_omni import compute_retention_mask

from tests.helpers.model_inputs import IMAGE, PAD, VIDEO, tiny_model
from tests.helpers.omni import FIXTURES, native_config, native_model, omni_model, our_config, public_weights, tubelets
from tests.helpers.omni_evs import changed, since_the_first, slow_mask, slow_rows, without_first_frame
from vlm.evs import kept_tokens, retention_mask, spread_tokens
from vlm.video_layout import OPENER
from vlm.video_tokens import video_tokens


def our_mask(embeds: torch.Tensor, thw: list[int], rate: float) -> torch.Tensor:
    frames, height, width = thw
    keep = kept_tokens(frames, height * width, rate)
    return retention_mask(embeds.view(frames, height * width, -1), keep).flatten()


def recorded_cases() -> list[tuple[torch.Tensor, list[int], float, torch.Tensor]]:
    stored = load_file(FIXTURES / "evs.safetensors")
    cases = ([stored[f"{i}.{name}"] for name in ("embeds", "thw", "q", "keep")] for i in range(len(stored) // 4))
    return [(embeds, thw.tolist(), q.item(), keep) for embeds, thw, q, keep in cases]


@pytest.mark.parametrize("case", range(5))
def test_recorded_masks_are_identical(case):
    embeds, thw, rate, wanted = recorded_cases()[case]
    assert torch.equal(our_mask(embeds, thw, rate), wanted)


def test_wrong_rules_do_not_give_the_recorded_masks():
    """The cases can tell: a first frame that is not kept, or a comparison with the first frame, fails some of them."""
    for rule in (without_first_frame, since_the_first):
        differs = 0
        for embeds, (t, h, w), rate, wanted in recorded_cases():
            slow = torch.tensor(slow_mask(embeds.view(t, h * w, -1), rate, rule)).flatten()
            differs += not torch.equal(slow, wanted)
        assert differs >= 2, rule.__name__


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (7, 7), (3, 5), (1, 6)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.7, 0.75, 0.9, 0.999])
def test_native_masks_of_other_videos(size, rate):
    """Videos that stand still in places, so that many tokens tie; the native function is told the right grid."""
    draw = torch.Generator().manual_seed(int(1000 * rate) + 10 * size[0] + size[1])
    for frames in (1, 2, 9):
        embeds = torch.randn(frames, *size, 8, generator=draw)
        for t in range(1, frames):
            still = torch.rand(size, generator=draw) < 0.6
            embeds[t][still] = embeds[t - 1][still]
        thw = (frames, *size)
        wanted = compute_retention_mask(video_embeds=embeds.view(-1, 8), thw=thw, spatial_merge_size=1, q=rate)
        found = our_mask(embeds, list(thw), rate)
        assert torch.equal(found, wanted) and int(found.sum()) == kept_tokens(frames, size[0] * size[1], rate)


def test_several_rectangular_videos_equal_plain_loops():
    draw = torch.Generator().manual_seed(3)
    shapes, rate = [(5, 6), (1, 2), (3, 4), (8, 3)], 0.6
    videos = [torch.randn(t, n, 8, generator=draw) for t, n in shapes]
    kept = [kept_tokens(t, n, rate) for t, n in shapes]
    tokens, numbers, counts = video_tokens(torch.cat([v.flatten(0, 1) for v in videos]), shapes, 1, kept)
    masks = [torch.tensor(slow_mask(video, rate)) for video in videos]
    assert torch.equal(tokens, torch.cat([video[mask] for video, mask in zip(videos, masks)])) and numbers == kept
    assert counts[1] is None  # a single frame is all kept
    for count, mask in zip(counts, masks):
        assert count is None or count.tolist() == mask.sum(-1).tolist()


# ---- through the model ----------------------------------------------------------------------------------------------

RATE = 0.6
LABELS = [[11, 12, 13], [14], [15, 16], [17, 18], [19], [20, 21], [22], [23, 24]]
# per prompt: an int is a text token, (h, w) an image, (t, h, w) a video, in patches
PROMPTS = [
    [9, (3, 2, 6), 31, 32, (2, 4), 33, (5, 4, 4), 34],
    [(4, 2, 2), 35],
    [36, 37, 38],
    [(2, 2), 39, (1, 4, 2), 40, (2, 6, 2), 41, 42],
]


def pruned_row(prompt: list) -> tuple[list[int], list[int], list[int]]:
    """`(ids, token types, tokens of each video)` as the processor writes them: placeholders spread over the frames."""
    ids, types, numbers = [], [], []

    def add(tokens: list[int], kind: int) -> None:
        ids.extend(tokens)
        types.extend([kind] * len(tokens))

    for part in prompt:
        if isinstance(part, int):
            add([part], 0)
        elif len(part) == 2:
            add([IMAGE] * (part[0] * part[1] // 4), 1)
        else:
            groups, per_group = part[0], part[1] * part[2] // 4
            numbers.append(kept_tokens(groups, per_group, RATE))
            pruned = numbers[-1] < groups * per_group
            for label, count in zip(LABELS, spread_tokens(groups, per_group, numbers[-1])):
                add(label, 0)
                types[-1] = OPENER if pruned else 0
                add([VIDEO] * count, 2)
    return ids, types, numbers


@pytest.fixture(scope="module")
def prompts():
    """`(model, features of all pictures in order, pixels)` of the prompts above."""
    model = tiny_model("llama", seed=2)
    draw = torch.Generator().manual_seed(4)
    parts = [part for prompt in PROMPTS for part in prompt if not isinstance(part, int)]
    images, clips = ([p for p in parts if len(p) == size] for size in (2, 3))
    pixels = {
        "pixel_values": torch.rand(sum(h * w for h, w in images), 48, generator=draw),
        "image_grid_hw": torch.tensor(images),
        "pixel_values_videos": torch.rand(sum(t * h * w for t, h, w in clips), 48, generator=draw),
        "video_grid_thw": torch.tensor(clips),
    }
    with torch.no_grad():
        image_tokens, video = model.encode_media(**pixels)
    image_tokens = image_tokens.split([h * w // 4 for h, w in images])
    sizes = [(t, h * w // 4) for t, h, w in clips]
    video = [v.unflatten(0, size) for v, size in zip(video.split([t * n for t, n in sizes]), sizes)]
    features = iter(image_tokens), iter(video)
    rows = [[next(features[len(p) - 2]) if isinstance(p, tuple) else p for p in prompt] for prompt in PROMPTS]
    rows = [[list(zip(LABELS, p)) if getattr(p, "ndim", 0) == 3 else p for p in row] for row in rows]
    return model, rows, pixels


def run(model, pixels: dict, side: str, hidden: int | None = None) -> tuple[dict, dict]:
    """`(what the language model was given, the batch)`; the word `hidden` is masked out."""
    rows = [pruned_row(prompt) for prompt in PROMPTS]
    length = max(len(ids) for ids, _, _ in rows)

    def pad(values: list[int], fill: int) -> list[int]:
        gap = [fill] * (length - len(values))
        return gap + values if side == "left" else values + gap

    batch = {
        "input_ids": torch.tensor([pad(ids, PAD) for ids, _, _ in rows]),
        "mm_token_type_ids": torch.tensor([pad(types, 0) for _, types, _ in rows]),
        "attention_mask": torch.tensor([pad([1] * len(ids), 0) for ids, _, _ in rows]),
        "video_num_tokens": torch.tensor([n for _, _, numbers in rows for n in numbers]),
    }
    if hidden is not None:
        batch["attention_mask"][batch["input_ids"] == hidden] = 0
    seen = {}
    hook = model.language_model.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    try:
        with torch.no_grad():
            seen["logits"] = model(**batch, **pixels).logits
    finally:
        hook.remove()
    return seen, batch


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_of_several_rectangular_videos_equal_plain_loops(prompts, side):
    model, parts, pixels = prompts
    seen, batch = run(model, pixels, side)
    table = model.get_input_embeddings().weight.detach()
    wanted = slow_rows(parts, lambda token: table[token], RATE)
    assert sum(map(len, wanted)) == int(batch["attention_mask"].sum()) == int(seen["attention_mask"].sum())
    losses = []
    for row, (pairs, mask) in enumerate(zip(wanted, batch["attention_mask"].bool())):
        labels, vectors = torch.tensor([label for label, _ in pairs]), torch.stack([vector for _, vector in pairs])
        assert torch.allclose(seen["inputs_embeds"][row][mask], vectors, atol=1e-6), row
        with torch.no_grad():
            alone = model.language_model(inputs_embeds=vectors[None]).logits[0]
        assert torch.allclose(seen["logits"][row][mask], alone, atol=1e-5), row
        losses.append(F.cross_entropy(alone[:-1], labels[1:], reduction="none")[labels[1:] != -100])
    types, mask = batch["mm_token_type_ids"], batch["attention_mask"].bool()
    words = ((types == 0) | (types == OPENER)) & mask & (mask.cumsum(-1) > 1)  # nothing stands before the first
    with torch.no_grad():
        loss = model(**batch, **pixels, labels=batch["input_ids"].where(words, -100)).loss
    assert torch.allclose(loss, torch.cat(losses).mean(), atol=1e-5)


def test_generation_starts_from_the_same_logits(prompts):
    model, _, pixels = prompts
    seen, batch = run(model, pixels, "left")
    made = model.generate(**batch, **pixels, max_new_tokens=1, do_sample=False)
    assert torch.equal(made[:, -1], seen["logits"][:, -1].argmax(-1))


def test_the_attention_mask_moves_with_the_words(prompts):
    """A word between frames that is masked out stays masked where its frame's label goes."""
    model, parts, pixels = prompts
    seen, batch = run(model, pixels, "right", hidden=LABELS[2][0])
    pairs = slow_rows(parts[:1], lambda token: torch.zeros(32), RATE)[0]
    wanted = [label != LABELS[2][0] for label, _ in pairs]
    assert seen["attention_mask"][0, : len(pairs)].bool().tolist() == wanted
    assert batch["attention_mask"][0, : len(pairs)].bool().tolist() != wanted


@pytest.mark.parametrize("rule", [without_first_frame, since_the_first])
def test_wrong_rules_give_other_prompts(prompts, rule):
    model, parts, pixels = prompts
    seen, batch = run(model, pixels, "left")
    table = model.get_input_embeddings().weight.detach()
    right, wrong = (slow_rows(parts[:1], lambda token: table[token], RATE, r)[0] for r in (changed, rule))
    given = seen["inputs_embeds"][0][batch["attention_mask"][0].bool()]
    right, wrong = (torch.stack([vector for _, vector in pairs]) for pairs in (right, wrong))
    assert torch.allclose(given, right, atol=1e-6)
    assert len(wrong) == len(right) and not torch.allclose(given, wrong, atol=1e-3)


def test_logits_of_a_pruned_video_are_the_native_ones(tmp_path):
    """Square frames, one video, batch of one: all that the native forward can prune, once it is handed the features."""
    config = native_config(FIXTURES)
    config.video_pruning_rate = RATE
    native = native_model(config, seed=8)
    model = omni_model(our_config(config), public_weights(native, tmp_path))
    frames = torch.randn(9, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    packed, (groups, height, width) = tubelets(frames, 16, 2)
    per_group, token = height * width // 4, config.image_token_id
    keep = kept_tokens(groups, per_group, RATE)
    whole, ids, types = [7], [7], [0]
    for label, count in zip(LABELS, spread_tokens(groups, per_group, keep)):
        whole += [*label, *[token] * per_group]
        ids += [*label, *[token] * count]
        types += [0] * (len(label) - 1) + [OPENER] + [2] * count
    with torch.no_grad():
        features = native.get_video_features(frames).pooler_output
        outputs = {"video": BaseModelOutputWithPooling(pooler_output=(features,))}
        wanted = native(input_ids=torch.tensor([[*whole, 8, 9]]), mm_encoder_outputs=outputs).logits
        found = model(
            input_ids=torch.tensor([[*ids, 8, 9]]),
            mm_token_type_ids=torch.tensor([[*types, 0, 0]]),
            pixel_values_videos=packed,
            video_grid_thw=torch.tensor([[groups, height, width]]),
            video_num_tokens=torch.tensor([keep]),
        ).logits
    assert found.shape == wanted.shape and keep < groups * per_group
    assert (found - wanted).abs().max() <= 1e-5
