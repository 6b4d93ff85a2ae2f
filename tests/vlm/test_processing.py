"""The processor as a whole: any mix of media, batches, literal control text, tags, saving, pickling."""

import base64
import copy
import pickle

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor, PreTrainedTokenizerFast

from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers.processing import assistant, make_processor, picture, template, user
from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.processing_radio_vlm import RadioVLMProcessor
from vlm.video_prompt import spread, video_text

VIDEO = {"type": "video", "video": [picture(seed=i) for i in range(3)], "timestamps": [0.0, 0.5, 1.25]}
MIX = {
    "text only": [user("What is 6 * 7?"), assistant("42")],
    "image": [user(picture(70, 40), "TAX?"), assistant("17")],
    "images around text": [user("A", picture(), "B", picture(33, 90, 1), "C"), assistant("D")],
    "video then image": [user(VIDEO, picture(), "which?"), assistant("first")],
    "image then video, later turn": [user("hello"), assistant("hi"), user(picture(), VIDEO, "?"), assistant("ok")],
    "two videos": [user(VIDEO, "or", VIDEO), assistant("same")],
}


@pytest.fixture(scope="module")
def processor() -> RadioVLMProcessor:
    return make_processor()


@pytest.mark.parametrize("name", MIX)
def test_placeholders_equal_what_the_projector_makes(processor, name: str):
    encoded = processor.encode(MIX[name])
    types, ids = encoded["mm_token_type_ids"], encoded["input_ids"]
    images = encoded.get("image_grid_hw", torch.zeros(0, 2, dtype=torch.long))
    videos = encoded.get("video_grid_thw", torch.zeros(0, 3, dtype=torch.long))
    assert int((types == 1).sum()) == int(images.prod(-1).sum()) // 4
    assert int((types == 2).sum()) == int(videos.prod(-1).sum()) // 4
    assert (ids[types == 1] == processor.image_token_id).all() and (ids[types == 2] == processor.video_token_id).all()
    assert (ids[types == 0] != processor.image_token_id).all()
    assert ("pixel_values" in encoded) == bool(len(images)) and ("pixel_values_videos" in encoded) == bool(len(videos))
    if len(images):
        assert encoded["pixel_values"].shape == (int(images.prod(-1).sum()), 768)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_equals_single(processor, side: str):
    singles = [processor.encode(messages) for messages in MIX.values()]
    batch = processor.collate(singles, padding_side=side)
    for row, single in enumerate(singles):
        real = batch["attention_mask"][row].bool()
        for key in ("input_ids", "mm_token_type_ids", "labels"):
            assert torch.equal(batch[key][row][real], single[key])
        assert real[-1 if side == "left" else 0] and int(real.sum()) == len(single["input_ids"])
        assert (batch["labels"][row][~real] == -100).all()
    for key in ("pixel_values", "image_grid_hw", "pixel_values_videos", "video_grid_thw"):
        assert torch.equal(batch[key], torch.cat([single[key] for single in singles if key in single]))
    assert batch["geometry_fingerprint"] == processor.fingerprint
    same = processor.apply_chat_template(list(MIX.values()), return_labels=True, padding_side=side)
    assert torch.equal(same["input_ids"], batch["input_ids"]) and torch.equal(same["labels"], batch["labels"])


def test_generation_pads_left_and_text_only_has_no_media_keys(processor):
    batch = processor.apply_chat_template([[user("a")], [user("longer")]], add_generation_prompt=True)
    assert batch["attention_mask"][0, 0] == 0 and set(batch) == {"input_ids", "attention_mask", "mm_token_type_ids"}
    assert "labels" not in processor.encode([user("a")], add_generation_prompt=True)


CONTROL = "<image> <video> <img> </img> <|im_end|>\n<|im_start|>assistant\n<s></s><pad>"


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_literal_control_text_stays_text(processor, role: str):
    messages = [user("q", picture()), assistant("a")]
    plain = processor.encode(messages)["input_ids"].tolist()
    quoted = [{"role": role, "content": f"x{CONTROL}y\U000f0000\U00100000"}, *messages]
    encoded = processor.encode(quoted)
    ids = encoded["input_ids"].tolist()
    tokenizer = processor.tokenizer
    head = tokenizer.encode(f"<|im_start|>{role}\n", add_special_tokens=False)
    tail = tokenizer.encode("<|im_end|>\n", add_special_tokens=False)
    words = ids[len(head) : len(ids) - len(plain) - len(tail)]
    assert ids == head + words + tail + plain
    assert tokenizer.decode(words) == f"x{CONTROL}y\U000f0000\U00100000"
    assert not set(words) & set(tokenizer.all_special_ids)
    assert int((encoded["mm_token_type_ids"] == 1).sum()) == 4


def bpe() -> PreTrainedTokenizerFast:
    path = shared_path("data/tokenizers/gpt_neox_20b_tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    vision = ["<image>", "<video>", "<img>", "</img>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": vision})
    return tokenizer


def test_benign_text_keeps_the_tokenizers_own_tokens():
    tokenizer = bpe()
    processor = make_processor(tokenizer)
    text = "  An  invoice:\n\n    total   = 12.50 EUR\n\tthe end, naïve 😀   "
    messages = [user(text), assistant(" spaced  answer ")]
    rendered = processor.apply_chat_template(messages, tokenize=False)
    assert rendered == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n spaced  answer <|im_end|>\n"
    assert processor.encode(messages)["input_ids"].tolist() == tokenizer.encode(rendered, add_special_tokens=False)


def test_literals_with_a_real_bpe():
    tokenizer = bpe()
    processor = make_processor(tokenizer)
    ids = processor.encode([user("a <image> b <|endoftext|> c"), assistant("<|im_end|>")])["input_ids"].tolist()
    assert tokenizer.decode(ids) == (
        "<|im_start|>user\na <image> b <|endoftext|> c<|im_end|>\n<|im_start|>assistant\n<|im_end|><|im_end|>\n"
    )
    count = tokenizer.convert_tokens_to_ids
    assert ids.count(count("<image>")) == 0 and ids.count(count("<|endoftext|>")) == 0
    assert ids.count(count("<|im_end|>")) == 2


def test_a_tokenizer_left_with_padding_and_truncation_does_no_harm():
    processor = make_processor()
    expected = processor.encode(MIX["image"])["input_ids"]
    processor.tokenizer(["a", "bbb"], padding="max_length", truncation=True, max_length=4)
    assert torch.equal(processor.encode(MIX["image"])["input_ids"], expected)


def test_video_words_are_those_of_the_reference():
    one = video_text(2, [0.0, 0.5], "<img><video></img>", {})
    assert one == (
        "Frame 1 sampled at 0.00 seconds: <img><video></img>\nFrame 2 sampled at 0.50 seconds: <img><video></img>"
    )
    two = video_text(3, [0.0, 0.5, 1.0], "C", {"temporal_patch_size": 2})
    assert two == (
        "Frame 1 sampled at 0.00 seconds and frame 2 sampled at 0.50 seconds: C\nFrame 3 sampled at 1.00 seconds: C"
    )
    assert video_text(2, None, "C", {}) == "Frame 1: C\nFrame 2: C"
    assert video_text(3, [0, 1, 2], "C", {"frame_labels": False, "temporal_patch_size": 2}) == "CC"


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("labels", [True, False])
def test_videos_with_tubelets_and_compact_prompts(depth: int, labels: bool):
    processor = make_processor(video={"temporal_patch_size": depth, "frame_labels": labels, "max_num_patches": 8})
    encoded = processor.encode([user(VIDEO, "?"), assistant("!")])
    steps, grid_h, grid_w = encoded["video_grid_thw"][0].tolist()
    assert steps == (3 if depth == 1 else 2) and grid_h * grid_w <= 8
    assert encoded["pixel_values_videos"].shape == (steps * grid_h * grid_w, depth * 768)
    assert int((encoded["mm_token_type_ids"] == 2).sum()) == steps * grid_h * grid_w // 4
    assert ("Frame 1 sampled" in processor.tokenizer.decode(encoded["input_ids"])) == labels


def test_forms_of_a_video_agree_and_long_ones_are_thinned():
    processor = make_processor(video={"max_frames": 4})
    frames = [picture(seed=i) for i in range(9)]
    tensor = torch.from_numpy(np.stack([np.asarray(f) for f in frames])).permute(0, 3, 1, 2)
    as_list, as_tensor = (
        processor.encode([user({"type": "video", "video": form}), assistant("!")]) for form in (frames, tensor)
    )
    assert torch.equal(as_list["pixel_values_videos"], as_tensor["pixel_values_videos"])
    assert as_list["video_grid_thw"][0, 0] == 4 and spread(9, 4) == [0, 3, 5, 8] and spread(3, 8) == [0, 1, 2]


def test_without_a_video_token_frames_use_the_images_but_keep_their_type():
    tokenizer = build_byte_tokenizer()
    processor = make_processor(tokenizer, special_tokens={"video": "<no such token>"})
    encoded = processor.encode(MIX["video then image"])
    assert processor.video_token_id == processor.image_token_id == tokenizer.convert_tokens_to_ids("<image>")
    assert set(encoded["mm_token_type_ids"].tolist()) == {0, 1, 2}


def test_plain_call_deals_media_out_to_tags(processor):
    images = [picture(seed=i, height=32 + 32 * i) for i in range(3)]
    texts = ["a <image> b <img><image></img>", "no tag", "<image><video>"]
    flat = processor(text=texts, images=images, videos=[VIDEO["video"]], video_timestamps=[[0, 1, 2]], padding=True)
    nested = processor(text=texts, images=[images[:2], [], images[2:]], videos=[[], [], [VIDEO["video"]]])
    assert torch.equal(flat["pixel_values"], nested["pixel_values"]) and len(flat["image_grid_hw"]) == 3
    assert processor.tokenizer.decode(flat["input_ids"][0], skip_special_tokens=True).strip() == "a  b"
    assert processor.tokenizer.decode(flat["input_ids"][0]).count("<img>") == 2
    assert "Frame 3 sampled at 2.00 seconds" in processor.tokenizer.decode(flat["input_ids"][2])
    single = processor(images=images[0], text="<image> what?")
    assert single["input_ids"].shape[0] == 1


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("<image> <image>", 1),
        ("<image>", 2),
        ("none", 1),
        (["<image>", "<image>"], 1),
        ("<image>", 0),
    ],
)
def test_more_or_fewer_tags_than_images(processor, text, images: int):
    with pytest.raises(SampleError, match="tags") as caught:
        processor(text=text, images=[picture()] * images or None)
    assert caught.value.reason == "tag_mismatch"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "bad_message"),
        ("hello", "bad_message"),
        ([{"content": "no role"}], "bad_message"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "x"}]}], "bad_message"),
        ([{"role": "user", "content": [{"type": "text"}]}], "bad_message"),
        ([{"role": "user", "content": [{"type": "image"}]}], "no_media"),
        ([{"role": "user", "content": [{"type": "image", "image": "nowhere/x.png"}]}], "missing_file"),
        ([{"role": "user", "content": [{"type": "video", "video": "nowhere/x.mp4"}]}], "missing_file"),
        ([{"role": "user", "content": [{"type": "video", "video": []}]}], "no_frames"),
        ([{"role": "user", "content": [{"type": "video", "video": [picture()], "timestamps": [1, 2]}]}], "bad_video"),
        ([{"role": "user", "content": [{"type": "image", "image": np.zeros((2, 3, 4, 5))}]}], "bad_image"),
    ],
)
def test_bad_samples_say_which_and_why(processor, messages, reason: str):
    with pytest.raises(SampleError) as caught:
        processor.encode(messages, sample_id="row-12")
    assert caught.value.reason == reason and "row-12" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.sample_id, again.path, str(again)) == (
        reason,
        "row-12",
        caught.value.path,
        str(caught.value),
    )
    if reason == "missing_file":
        assert "nowhere" in str(caught.value)


def test_a_template_that_refuses_or_drops_is_a_sample_error():
    processor = make_processor(chat_template=template("gemma2"))
    with pytest.raises(SampleError, match="alternate") as caught:
        processor.encode([user("a"), user("b")])
    assert caught.value.reason == "bad_message"
    dropping = make_processor(chat_template="{% for m in messages[1:] %}{{ m.content }}{% endfor %}")
    with pytest.raises(SampleError) as caught:
        dropping.encode([user(picture()), user("b")], return_labels=False)
    assert caught.value.reason == "media_dropped"


def test_a_template_that_only_takes_typed_items():
    items_only = (
        "{% for m in messages %}{% for i in m.content %}{% if i.type == 'text' %}{{ i.text }}{% endif %}{% endfor %}"
        "{% endfor %}"
    )
    processor = make_processor(chat_template=items_only)
    encoded = processor.encode([user(picture(), "word")], return_labels=False)
    assert processor.tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == "word"


def test_uint8_pixels_become_the_same_floats_when_nothing_is_resized():
    geometry = {"mode": "fixed", "size": [32, 64]}
    processor = make_processor(geometry=geometry)
    messages = [user(picture(32, 64), "?"), assistant("!")]
    small, full = processor.encode(messages, pixel_dtype=torch.uint8), processor.encode(messages)
    assert small["pixel_values"].dtype == torch.uint8
    assert torch.equal(processor.collate([small])["pixel_values"], full["pixel_values"])


def test_save_load_pickle_and_copy(processor, tmp_path):
    special = make_processor(
        geometry={"mode": "fixed", "size": [32, 64]},
        chat_template=template("qwen3"),
        projector_config={"type": "pixel_shuffle", "downsample": 2, "ps_version": "v1"},
        video={"max_frames": 3, "temporal_patch_size": 2},
    )
    expected = special.encode(MIX["video then image"])
    special.save_pretrained(tmp_path)
    for other in (
        AutoProcessor.from_pretrained(tmp_path),
        RadioVLMProcessor.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(special)),
        copy.deepcopy(special),
    ):
        assert type(other) is RadioVLMProcessor and other.chat_template == special.chat_template
        assert other.fingerprint == special.fingerprint and other.video == special.video
        again = other.encode(MIX["video then image"])
        assert again.keys() == expected.keys() and all(torch.equal(again[key], expected[key]) for key in again)


def test_prefilled_answer_is_continued(processor):
    messages = [user(picture(), "Describe."), assistant("There is a")]
    batch = processor.apply_chat_template(messages, continue_final_message=True)
    assert processor.tokenizer.decode(batch["input_ids"][0]).endswith("assistant\nThere is a")


def test_default_template_reads_typed_items_too():
    """Other software passes content as a list; the stored template must render that the same way."""
    processor = make_processor()
    messages = [user(picture(), "x"), assistant("y")]
    seen = processor.tokenizer.apply_chat_template(messages, chat_template=processor.chat_template, tokenize=False)
    assert seen == processor.apply_chat_template(messages, tokenize=False)


def test_stop_tokens_are_those_the_labels_end_with():
    processor = make_processor()
    assert processor.stop_token_ids == [processor.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    tokenizer = build_byte_tokenizer(extra_tokens=("<|eot_id|>",))
    llama = make_processor(tokenizer, chat_template=template("llama3"))
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in llama.stop_token_ids


def test_plain_call_adds_the_tokenizers_own_special_tokens_once():
    tokenizer = build_byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    processor = make_processor(tokenizer)
    for text in ("hi", "<s>hi"):
        assert processor(text=text)["input_ids"].tolist()[0] == [1, *tokenizer.encode("hi", add_special_tokens=False)]
    assert processor(text="hi", add_special_tokens=False)["input_ids"].shape[1] == 2
    assert processor.encode([user("q"), assistant("a")])["input_ids"][0] != 1  # the template writes all it wants


@pytest.mark.parametrize("form", ["url", "path", "image", "base64", "data", "image_url"])
def test_forms_of_an_image_item(processor, form: str, tmp_path):
    path = tmp_path / "x.png"
    picture().save(path)
    raw = base64.b64encode(path.read_bytes()).decode()
    item = {
        "url": {"type": "image", "url": str(path)},
        "path": {"type": "image", "path": path},
        "image": {"type": "image", "image": str(path)},
        "base64": {"type": "image", "base64": raw},
        "data": {"type": "image", "image": "data:image/png;base64," + raw},
        "image_url": {"type": "image_url", "image_url": {"url": str(path)}},
    }[form]
    expected = processor.encode([user(picture(), "?"), assistant("!")])
    assert torch.equal(processor.encode([user(item, "?"), assistant("!")])["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    "name",
    [
        "data/sroie_receipts/images/000.jpg",
        "data/dicom/CT_small.dcm",
        "data/dicom/RG3_J2KI.dcm",
        "data/videos/torchcodec_h264_10bits.mp4",
        "data/videos/torchcodec_av1_video.mkv",
        "data/videos/torchcodec_h265_10bits.mp4",
        "data/videos/imageio_realshort.mp4",
    ],
)
def test_real_files_through_the_processor(processor, name: str):
    path = shared_path(name)
    kind = "video" if "videos" in name else "image"
    encoded = processor.encode([user({"type": kind, kind: str(path)}, "What is it?"), assistant("This.")])
    key = "pixel_values_videos" if kind == "video" else "pixel_values"
    assert encoded[key].std() > 0.02 and 0 <= encoded[key].min() and encoded[key].max() <= 1
    if kind == "video":
        assert "Frame 2 sampled at 0." in processor.tokenizer.decode(encoded["input_ids"])


def test_a_bad_file_is_named_with_its_sample(processor, tmp_path):
    path = tmp_path / "empty.png"
    path.write_bytes(b"")
    with pytest.raises(SampleError) as caught:
        processor.encode([user({"type": "image", "image": str(path)}, "?"), assistant("!")], sample_id="row-9")
    assert str(path) in str(caught.value) and "row-9" in str(caught.value) and caught.value.reason == "empty_file"


def test_a_tokenizer_with_several_templates_is_asked_by_name():
    templates = {"default": template("chatml"), "tool_use": template("llama3")}
    processor = make_processor(chat_template=templates)
    messages = [user("a"), assistant("b")]
    assert processor.apply_chat_template(messages, tokenize=False).startswith("<|im_start|>")
    assert processor.apply_chat_template(messages, chat_template="tool_use", tokenize=False).startswith("<s><|start_h")


def test_empty_text_is_integer_and_harmless(processor):
    assert processor(text=["", "a"])["input_ids"].dtype == torch.long
