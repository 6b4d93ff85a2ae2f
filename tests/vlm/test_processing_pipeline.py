"""`pipeline("image-text-to-text")` and the model's forward take what the processor makes."""

import pytest
import torch
from transformers import pipeline

from tests.helpers.processing import assistant, picture, user
from tests.helpers.tiny_vlm import build_tiny


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


@pytest.fixture(scope="module")
def pipe(parts):
    model, processor = parts
    return pipeline("image-text-to-text", model=model, processor=processor)


def answer(records: list[dict]) -> str:
    text = records[0]["generated_text"]
    return text if isinstance(text, str) else text[-1]["content"]


OPTIONS = {"generate_kwargs": {"max_new_tokens": 4, "do_sample": False}}


def test_chat_with_an_image_file(pipe, tmp_path):
    picture(40, 70).save(tmp_path / "x.png")
    chat = [user({"type": "image", "url": str(tmp_path / "x.png")}, "What is it?")]
    records = pipe(text=chat, return_full_text=False, **OPTIONS)
    assert len(records) == 1 and isinstance(answer(records), str)


def test_chats_in_a_batch_equal_single_ones(pipe):
    chats = [[user(picture(seed=i, height=32 + 32 * i), "What?" * (i + 1))] for i in range(3)] + [[user("no image")]]
    single = [pipe(text=chat, return_full_text=False, **OPTIONS)[0]["generated_text"] for chat in chats]
    batch = [r[0]["generated_text"] for r in pipe(text=chats, return_full_text=False, **OPTIONS)]
    assert batch == single


def test_text_with_tags_and_prefill(pipe):
    records = pipe(images=[picture()], text="<image>What?", **OPTIONS)
    assert records[0]["generated_text"].startswith("<image>What?")
    chat = [user(picture(), "What?"), assistant("It is")]
    full = pipe(text=chat, **OPTIONS)[0]["generated_text"]
    assert full[-1]["content"][-1]["text"].startswith("It is")


def test_forward_and_generate_on_every_mix(parts):
    model, processor = parts
    clip = {"type": "video", "video": [picture(seed=i) for i in range(3)], "timestamps": [0, 0.5, 1]}
    mixes = [
        [user("plain"), assistant("yes")],
        [user(picture(), "a", picture(90, 33, 1)), assistant("two")],
        [user("first"), assistant("ok"), user(clip, picture(), "?"), assistant("three")],
    ]
    batch = processor.apply_chat_template(mixes, return_labels=True)
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)
    prompts = processor.apply_chat_template([mix[:-1] for mix in mixes], add_generation_prompt=True)
    generated = model.generate(**prompts, max_new_tokens=3, do_sample=False)
    assert generated.shape[0] == 3


def test_a_processor_of_another_geometry_is_refused():
    model, processor = build_tiny()
    other = type(processor)(
        processor.image_processor,
        processor.tokenizer,
        projector_config={**processor.projector_config, "ps_version": "v1"},
        video=processor.video,
    )
    batch = other.apply_chat_template([user(picture(), "?")], add_generation_prompt=True)
    with pytest.raises(ValueError, match="processor"), torch.no_grad():
        model(**batch)
