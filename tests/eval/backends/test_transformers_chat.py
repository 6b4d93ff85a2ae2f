"""Peers and text-only models behind the runner: real tiny models of several families, and what each cannot do."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from eval.backends import open_backend
from eval.backends.base import Decoding
from eval.backends.chat_prompt import PLAIN, TEMPLATE
from eval.backends.open_media import Clip
from eval.backends.transformers_chat import TransformersBackend, metadata_of
from eval.controls import shuffled_order
from eval.data import Sample
from eval.generation import Generator, Request
from eval.run import main
from eval.tasks.base import shuffle_videos
from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers import tiny_peers
from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.pdfs import write_pages
from tests.helpers.video_files import numbers, write_video

SIX = Decoding(6)
FAMILIES = ("llava", "idefics3", "paligemma")


@pytest.fixture(scope="module")
def peers():
    return {name: TransformersBackend(*getattr(tiny_peers, f"tiny_{name}")()) for name in (*FAMILIES, "llama")}


def picture(seed, height=40, width=60):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def asked(text, *images):
    media = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*media, {"type": "text", "text": text}]}]


def answers(backend, conversations, batch_size, decoding=SIX):
    requests = [Request(str(place), messages) for place, messages in enumerate(conversations)]
    replies = Generator(backend, batch_size, progress=False).answer(requests, decoding)
    assert not [reply.error for reply in replies if reply.error]
    return replies


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_answers_as_each_alone(peers, family):
    """Several lengths, sizes and numbers of pictures; questions without any where the family takes those."""
    conversations = [asked("a", picture(1)), asked("and something longer", picture(2, 64, 20)), asked("b", picture(3))]
    conversations += [asked("two", picture(4, 20, 20), picture(5, 90, 70))]
    if family != "paligemma":
        conversations += [asked("what?"), asked("why " * 9)]
    alone, together = (answers(peers[family], conversations, size) for size in (1, 16))
    assert [reply.text for reply in alone] == [reply.text for reply in together]
    assert [reply.prompt_tokens for reply in alone] == [reply.prompt_tokens for reply in together]
    assert len({reply.text for reply in alone}) > 2, "a model that always says the same would pass any such test"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_what_transformers_own_way_gives(peers, family):
    """The slow twin: one conversation, no padding, nothing but the processor and generate."""
    backend = peers[family]
    model, processor = backend.model, backend.its_processor
    text = (
        "<image>what" if family == "paligemma" else "<|im_start|>user\n<image>what<|im_end|>\n<|im_start|>assistant\n"
    )
    inputs = processor(text=[text], images=[[picture(7)]], return_tensors="pt")
    inputs.pop("labels", None)
    output = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    wanted = processor.tokenizer.decode(output, skip_special_tokens=True).strip()
    (reply,) = answers(backend, [asked("what", picture(7))], 1)
    assert reply.text == wanted
    assert reply.prompt_tokens == inputs["input_ids"].shape[1]


def test_the_picture_is_seen_and_its_tokens_are_counted(peers):
    """16 tokens are an image of 32 x 32 pixels in patches of 8."""
    one, same, other = answers(peers["llava"], [asked("q", picture(n)) for n in (1, 1, 2)], 4)
    assert (one.text, one.media_tokens) == (same.text, 16)
    assert one.text != other.text
    assert "<image>×16q" in one.prompt


def test_stop_strings_cut_and_the_limit_is_told(peers):
    (whole,) = answers(peers["llava"], [asked("q", picture(1))], 1)
    assert not whole.stopped and whole.tokens == 6
    stop = whole.text[2]
    (cut,) = answers(peers["llava"], [asked("q", picture(1))], 1, Decoding(6, (stop,)))
    assert cut.stopped and cut.text == whole.text.split(stop)[0].strip()


def test_tokenizers_without_a_pad_token_that_pad_on_the_right():
    tokenizer = build_byte_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = None, "right"
    backend = TransformersBackend(*tiny_peers.tiny_llava(tokenizer=tokenizer))
    conversations = [asked("a", picture(1)), asked("a much longer question", picture(2))]
    usual = TransformersBackend(*tiny_peers.tiny_llava())
    found, wanted = (answers(one, conversations, 2) for one in (backend, usual))
    assert [reply.text for reply in found] == [reply.text for reply in wanted]


def test_a_processor_that_insists_on_the_right_is_refused():
    model, processor = tiny_peers.tiny_llava()
    backend = TransformersBackend(model, processor)
    backend.its_processor = lambda padding_side=None, **rest: processor(padding_side="right", **rest)
    batch = [backend.encode(asked(text, picture(1)), text) for text in ("a", "longer")]
    with pytest.raises(ValueError, match="pads prompts on the right"):
        backend.generate(batch, Decoding(2))


def test_templates_over_strings_get_the_image_token_in_words():
    backend = TransformersBackend(*tiny_peers.tiny_llava(tiny_peers.STRING_TEMPLATE))
    assert backend.prompt.form == TEMPLATE
    assert backend.encode(asked("what?", picture(1)), "x").data.text == "user: <image>\nwhat?\nassistant: "


def test_no_template_means_single_questions_only(peers):
    backend = peers["paligemma"]
    assert backend.describe()["prompt_form"] == PLAIN
    turns = [*asked("a", picture(1)), {"role": "assistant", "content": "b"}, *asked("c")]
    with pytest.raises(ValueError, match="no chat template, so it can be asked single questions only, not 3 turns"):
        backend.encode(turns, "x")


def test_documents_become_labelled_pages(peers, tmp_path):
    pytest.importorskip("pypdfium2", reason="optional package absent")
    item = {"type": "document", "document": str(write_pages(tmp_path / "two.pdf", 2))}
    encoded = peers["idefics3"].encode([{"role": "user", "content": [item, {"type": "text", "text": "?"}]}], "x")
    assert "Page 1:\n<image>\nPage 2:\n<image>\n?" in encoded.data.text
    assert len(encoded.data.images) == 2


def frames(count):
    return torch.stack([torch.full((3, 32, 32), 20 * n, dtype=torch.uint8) for n in range(count)])


def test_videos_are_pictures_with_times_where_no_processor_takes_them(peers):
    item = {"type": "video", "video": frames(3), "timestamps": [0.0, 0.5, 1.0]}
    encoded = peers["llava"].encode([{"role": "user", "content": [item, {"type": "text", "text": "?"}]}], "x")
    assert encoded.data.text.count("<image>") == 3 == len(encoded.data.images)
    assert "Frame 2 sampled at 0.50 seconds: <image>" in encoded.data.text
    assert peers["llava"].describe()["video"] == {"max_frames": 8, "fps": 2.0, "given_as": "images with times"}
    assert [image.getpixel((0, 0))[0] for image in encoded.data.images] == [0, 20, 40]


@pytest.mark.parametrize("count", [4, 12])
def test_the_control_of_shuffled_frames_works_without_a_processor_of_ours(peers, tmp_path, count):
    """Twelve frames are more than the usual eight: the control shows as many as the question did."""
    pytest.importorskip("av", reason="optional package absent")
    path = write_video(tmp_path / "clip.mp4", count, rate=2)
    item = {"type": "video", "video": str(path), "max_frames": 12}
    sample = Sample("s", "x", [{"role": "user", "content": [item, {"type": "text", "text": "?"}]}])

    def shown(messages):
        images = peers["llava"].encode(messages, "s").data.images
        return numbers(torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]))

    assert shown(sample.prompt) == list(range(count))
    assert shown(shuffle_videos(sample, 1, peers["llava"].processor)) == shuffled_order(count, 1, "s:0")


def test_times_of_a_clip_reach_a_video_processor():
    """Seconds = index / fps, and frames a second as sampled = frames / duration."""
    about = metadata_of(Clip([picture(1)] * 4, [0.5, 1.0, 1.5, 2.0]))
    assert [index / about["fps"] for index in about["frames_indices"]] == [0.5, 1.0, 1.5, 2.0]
    assert len(about["frames_indices"]) / about["total_num_frames"] * about["fps"] == pytest.approx(2.0, rel=0.01)
    assert (about["width"], about["height"]) == (60, 40)
    assert metadata_of(Clip([picture(1)], [0.0]))["total_num_frames"] >= 1


def test_a_video_processor_is_given_clips():
    """Its calls are recorded: the families that have one need torchvision."""
    model, processor = tiny_peers.tiny_llava()
    backend, calls = TransformersBackend(model, processor), []
    backend.watches = True

    def recorded(text, videos=None, video_metadata=None, do_sample_frames=None, **rest):
        calls.append((text, videos, video_metadata, do_sample_frames))
        return processor(text=[one.replace("<video>", "clip") for one in text], **rest)

    backend.its_processor = recorded

    def about_a_clip(count):
        clip = {"type": "video", "video": frames(count), "timestamps": [0.5 * n for n in range(count)]}
        return backend.encode([{"role": "user", "content": [clip, {"type": "text", "text": f"? {count}"}]}], "b")

    batch = [about_a_clip(3), backend.encode(asked("no video"), "a"), about_a_clip(2), about_a_clip(3)]
    backend.generate(batch, Decoding(2))
    expected = ("clip? 3", "no video", "clip? 2", "clip? 3")
    assert all(words in encoded.prompt for words, encoded in zip(expected, batch)), "one prompt each, in whatever call"
    threes, without, twos = calls
    assert "<video>? 3" in threes[0][0] and [one.shape for one in threes[1]] == [(3, 32, 32, 3)] * 2
    assert threes[2][0]["frames_indices"] == [0, 500, 1000] and threes[3] is False
    assert without[1:] == (None, None, None)
    assert [one.shape for one in twos[1]] == [(2, 32, 32, 3)], "clips of another length are another call"


@pytest.mark.parametrize("family", ["llava", "idefics3", "llama"])
def test_answers_are_weighed_as_they_would_be_written(peers, family):
    """The slow twin asks the bare model once a token, with ever longer prompts."""
    backend, media = peers[family], () if family == "llama" else (picture(3),)
    inputs = backend._inputs([backend._asked(asked("q", *media))])
    ids = backend.tokenizer("yes", add_special_tokens=False)["input_ids"] + backend.stop_ids[:1]
    total = 0.0
    for place, token in enumerate(ids):
        longer = torch.cat([inputs["input_ids"], torch.tensor([ids[:place]], dtype=torch.long)], 1)
        rest = {name: inputs[name] for name in inputs if name.startswith("pixel")}
        with torch.no_grad():
            logits = backend.model(input_ids=longer, attention_mask=torch.ones_like(longer), **rest).logits[0, -1]
        total += float(torch.log_softmax(logits.float(), -1)[token])
    probability, tokens = backend.answer_probability([*asked("q", *media), {"role": "assistant", "content": "yes"}])
    assert tokens == len(ids) == 4
    assert probability == pytest.approx(math.exp(total / tokens), rel=1e-4)


def test_a_prefix_that_sees_itself_does_not_see_the_answer(peers):
    """PaliGemma: its first answer token weighs the same whatever follows it."""
    backend, asks = peers["paligemma"], asked("q", picture(3))
    inputs = backend._inputs([backend._asked(asks)])
    first = backend.model.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
    backend.stop_ids, kept = [backend.tokenizer("a")["input_ids"][0]], backend.stop_ids
    try:
        probability, tokens = backend.answer_probability([*asks, {"role": "assistant", "content": ""}])
    finally:
        backend.stop_ids = kept
    wanted = torch.softmax(first.logits[0][0].float(), -1)[backend.tokenizer("a")["input_ids"][0]]
    assert tokens == 1 and probability == pytest.approx(float(wanted), rel=1e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints on disk, and questions about pictures."""
    root = tmp_path_factory.mktemp("peers")
    for name in ("llava", "llama"):
        for part in getattr(tiny_peers, f"tiny_{name}")():
            part.save_pretrained(root / name)
    for n in range(3):
        write_image(root / f"data/images/{n}.png", color=(80 * n, 9, 200))
    records = [record(f"s{n}", answer="x", images=(f"images/{n}.png",)) for n in range(3)]
    write_records(root / "data", records)
    return root


def run(folders, tmp_path, *words):
    out = tmp_path / "r.json"
    code = main(
        [*map(str, words), "--data", str(folders / "data"), "--out", str(out), "--no-progress", "--device", "cpu"]
    )
    return code, json.loads(out.read_text())


def test_a_peer_is_run_from_its_folder(folders, tmp_path):
    code, results = run(folders, tmp_path, "--model", folders / "llava", "--max-new-tokens", 3)
    assert code == 0 and [row["error"] for row in results["samples"] if row["control"] is None] == [None] * 3
    about = results["provenance"]["model"]
    assert about["class"] == "LlavaForConditionalGeneration" and about["prompt_form"] == TEMPLATE
    assert about["fingerprint"] and results["samples"][0]["media_tokens"] == 16


def test_a_language_model_is_the_text_only_baseline(folders, tmp_path):
    code, results = run(folders, tmp_path, "--model", folders / "llama", "--blind", "--max-new-tokens", 3)
    assert code == 0 and not [row for row in results["samples"] if row["error"]]
    assert results["provenance"]["blind"] and results["samples"][0]["media_tokens"] == 0


def test_a_language_model_is_not_asked_about_pictures(folders, tmp_path, capsys):
    """The whole run stops before the first question, with no results; text without pictures is answered."""
    out = tmp_path / "r.json"
    words = ["--model", str(folders / "llama"), "--out", str(out), "--device", "cpu", "--max-new-tokens", "3"]
    assert main([*words, "--data", str(folders / "data")]) == 2
    err = capsys.readouterr().err
    assert "eval/run.py: LlamaForCausalLM came without an image processor" in err and "ask with --blind" in err
    assert list(tmp_path.iterdir()) == []
    write_records(tmp_path / "words", [record("s", answer="x")])
    assert main([*words, "--data", str(tmp_path / "words"), "--no-progress"]) == 0
    assert json.loads(out.read_text())["samples"][0]["error"] is None


def test_likelihood_through_a_peer(folders, tmp_path):
    code, results = run(folders, tmp_path, "--model", folders / "llava", "--likelihood", folders / "data")
    rows = [row for row in results["samples"] if row["task"].endswith("likelihood")]
    assert code == 0 and len(rows) == 3 and all(0 < row["score"] < 1 for row in rows)


def test_models_that_answer_nothing_are_refused(tmp_path):
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(tmp_path)
    build_byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a `clip` model is neither an image-text-to-text nor a causal language model"):
        open_backend(str(tmp_path), device="cpu")


def test_a_processor_that_needs_torchvision_is_one_clear_line(tmp_path):
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        pytest.skip("torchvision is there")
    from transformers import Qwen2VLConfig

    Qwen2VLConfig().save_pretrained(tmp_path)
    build_byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Qwen2VLProcessor"}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Qwen2VLImageProcessor"}')
    (tmp_path / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen2VLVideoProcessor"}')
    with pytest.raises(ValueError, match="needs torchvision, which is not installed: pip install torchvision") as error:
        open_backend(str(tmp_path), device="cpu")
    assert "\n" not in str(error.value)


def test_a_lora_stage_opens_as_in_chat(tmp_path):
    """The loader is the package's own: base, adapter on it, the processor of the adapter folder."""
    pytest.importorskip("peft", reason="optional package absent")
    from peft import LoraConfig

    from tests.helpers.stage_runs import small_vlm
    from vlm.adapted_model import inject, save_adapter
    from vlm.adapter_folder import base_of

    model, processor = small_vlm()
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    inject(model, config, base_of(str(tmp_path / "base")))
    save_adapter(model, tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    backend = open_backend(str(tmp_path / "adapter"), device="cpu")
    assert any("lora" in name for name, _ in backend.model.named_parameters())
    assert backend.fingerprint and backend.fingerprint != open_backend(str(tmp_path / "base"), device="cpu").fingerprint
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is an adapter of .*base, which is not there"):
        open_backend(str(tmp_path / "adapter"), device="cpu")
