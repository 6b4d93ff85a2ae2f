"""The lmms-eval plug-in against a stand-in of lmms-eval's classes: its requests, its options, our answers to them."""

import ast
import configparser
import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from eval.backends.radio import RadioBackend
from eval.evaluate import evaluate
from eval.jobs import job_for_data
from eval.tasks.base import Options
from tests.helpers import lmms_eval_stub as stub
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from tests.helpers.stage_runs import small_vlm

ROOT = Path(__file__).resolve().parents[3]
GREEDY = {"max_new_tokens": 8, "until": ["\n\n"], "temperature": 0, "do_sample": False}


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in's module, imported beside the stand-in."""
    stub.install(monkeypatch)
    module = importlib.import_module("eval.plugins.lmms_eval_model")
    yield module
    sys.modules.pop("eval.plugins.lmms_eval_model", None)


@pytest.fixture
def open_fake(plugin, monkeypatch):
    """`open_fake(model, docs, batch_size=…)`: the plug-in over a fake model, with the documents of one task."""

    def open_fake(model, docs, **options):
        monkeypatch.setattr(plugin, "open_backend", lambda *_, **__: RadioBackend(model, FakeProcessor()))
        lm = plugin.RadioVLM("somewhere", **options)
        lm.task_dict = {"task": {"test": docs}}
        return lm

    return open_fake


def ask_text(doc):
    return [{"role": "user", "content": [{"type": "text", "text": doc}]}]


def texts(results):
    return [result.text for result in results]


def test_answers_are_those_of_our_own_runner(plugin, monkeypatch, tmp_path):
    """A real model, pictures opened there and named here: also such as are turned by their tag, or transparent."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    rows = []
    for i in range(6):
        picture = Image.new(
            "RGBA" if i % 3 == 2 else "RGB", (48 + 16 * (i % 3), 96), (40 * i, 255 - 40 * i, 90, 128)[:4]
        )
        picture.paste((255, 0, 0), (0, 0, 20, 20))
        name = f"{i}.{'png' if i % 3 == 2 else 'jpg'}"
        picture.save(tmp_path / name, exif=exif if i % 3 == 1 else Image.Exif())
        rows.append({"id": i, "image": name, "question": f"What is {'so ' * i}here?", "answers": ["x"]})
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    backend = RadioBackend(*small_vlm())
    ours = evaluate(backend, [job_for_data(tmp_path / "q.jsonl")], Options(controls=False, max_new_tokens=8),
                    progress=False)["samples"]  # fmt: skip

    def doc_to_messages(doc):
        picture = {"type": "image", "url": Image.open(tmp_path / doc["image"])}
        return [{"role": "user", "content": [picture, {"type": "text", "text": doc["question"]}]}]

    monkeypatch.setattr(plugin, "open_backend", lambda *_, **__: backend)
    lm = plugin.RadioVLM("somewhere", batch_size="4")
    lm.task_dict = {"task": {"test": rows}}
    theirs = lm.generate_until([stub.instance(doc_to_messages, GREEDY, i) for i in range(6)])
    assert texts(theirs) == [row["output"] for row in ours] and len(set(texts(theirs))) > 1
    assert [r.token_counts.input_tokens for r in theirs] == [row["prompt_tokens"] for row in ours]
    assert [r.token_counts.output_tokens for r in theirs] == [row["new_tokens"] for row in ours]


def test_order_is_kept_and_requests_share_batches_where_they_are_decoded_alike(open_fake):
    docs = ["x" * (5 * i % 17 + 1) for i in range(20)]
    model = FakeModel(lambda picture, text: "y" * len(text))
    lm = open_fake(model, docs, batch_size=8)
    kwargs = [{**GREEDY, "max_new_tokens": (4, 30)[i % 2]} for i in range(20)]
    answers = texts(lm.generate_until([stub.instance(ask_text, kwargs[i], i) for i in range(20)]))
    assert answers == ["y" * min(len(docs[i]) + 1, (4, 30)[i % 2]) for i in range(20)]
    assert [len(batch) for batch in model.batches] == [8, 2, 8, 2]  # ten of each kind, sorted by length
    assert all(batch == sorted(batch, reverse=True) for batch in model.batches)


@pytest.mark.parametrize(
    "until, answer",
    [
        (["\n\n"], "first\n\nsecond END third"),  # put there by lmms-eval, not by the task
        ([], "first\n\nsecond END third"),
        (None, "first\n\nsecond END third"),
        (["\n\n", "END"], "first\n\nsecond"),
        ("END", "first\n\nsecond"),
        (["third", "second"], "first"),
    ],
)
def test_until(open_fake, until, answer):
    lm = open_fake(FakeModel(lambda picture, text: "first\n\nsecond END third"), ["q"])
    (result,) = lm.generate_until([stub.instance(ask_text, {"max_new_tokens": 64, "until": until}, 0)])
    assert result.text == answer


def test_decoding_of_a_task(plugin):
    assert plugin.decoding_of({}, "t").max_new_tokens == 1024
    greedy = ({"temperature": 0, "do_sample": True}, {"temperature": None, "top_p": 0.9}, {"num_beams": 1},
              {"temperature": 0.7, "do_sample": False})  # fmt: skip
    for kwargs in greedy:
        assert plugin.decoding_of({**kwargs, "max_new_tokens": 5}, "t") == plugin.Decoding(5)
    for kwargs in ({"temperature": 0.2, "do_sample": True}, {"temperature": "0.7"}, {"num_beams": 3}):
        with pytest.raises(ValueError, match="task mathvista asks for sampling or beams.*--gen_kwargs temperature=0"):
            plugin.decoding_of(kwargs, "mathvista")


def test_options_without_effect_are_named(open_fake, caplog):
    lm = open_fake(FakeModel(lambda *_: "a"), ["q"])
    lm.generate_until([stub.instance(ask_text, {**GREEDY, "image_aspect_ratio": "pad", "top_p": None}, 0)])
    assert "generation_kwargs of task without effect here: image_aspect_ratio" in caplog.text
    assert "top_p" not in caplog.text


def test_a_failed_request_is_an_empty_answer_with_its_name_in_the_log(open_fake, caplog):
    def ask(doc):
        return doc() if callable(doc) else ask_text(doc)

    def broken():
        raise KeyError("no such column")

    lm = open_fake(FakeModel(lambda picture, text: "fine", poison="poison"), ["a", "poison", broken, "b"], batch_size=4)
    results = lm.generate_until([stub.instance(ask, GREEDY, i) for i in range(4)])
    assert texts(results) == ["fine", "", "", "fine"]
    assert "task/test/1 was not answered: RuntimeError: poisoned" in caplog.text
    assert "task/test/2 was not answered: KeyError: 'no such column'" in caplog.text
    assert "2 of 4 requests failed" in caplog.text
    with pytest.raises(RuntimeError, match="all 1 requests failed, the first with RuntimeError: poisoned"):
        lm.generate_until([stub.instance(ask, GREEDY, 1)])


def test_videos_are_cut_and_sampled_as_asked(plugin):
    def item(**part):
        chat = stub.ChatMessages([{"role": "user", "content": [{"type": "video", **part}]}])
        return plugin.convert(chat, {"max_frames": 8, "fps": 2.0})[0]["content"][0]

    assert item(url="a.mp4") == {"type": "video", "video": "a.mp4", "max_frames": 8, "fps": 2.0}
    cut = {"start": 1.5, "end": 4.0}
    assert item(url="a.mp4", start_time=1.5, end_time=4) == {**item(url="a.mp4"), **cut}
    assert item(url={"video": "a.mp4", "video_start": 1.5, "video_end": 4}) == {**item(url="a.mp4"), **cut}
    assert item(url=["f0", "f1"]) == {"type": "video", "video": ["f0", "f1"], "max_frames": 8}


def test_roles_and_sound(plugin):
    turns = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("system", "user")]
    assert plugin.convert(stub.ChatMessages(turns), {}) == turns
    sound = stub.ChatMessages([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}])
    with pytest.raises(ValueError, match="shows audio; the model sees images and videos only"):
        plugin.convert(sound, {})


def test_options_reach_the_backend(plugin, monkeypatch):
    seen = {}
    backend = RadioBackend(FakeModel(), FakeProcessor())
    monkeypatch.setattr(plugin, "open_backend", lambda model, **options: seen.update(model=model, **options) or backend)
    lm = plugin.RadioVLM("folder", "cpu", "16", dtype="bfloat16", trust_remote_code=True, pruning_rate=0.5)
    wanted = {"device": "cpu", "dtype": "bfloat16", "trust_remote_code": True, "pruning_rate": 0.5}
    assert seen == {"model": "folder", **wanted} and lm.generator.batch_size == 16 and lm.is_simple is False
    for wrong in ("auto", 0):
        with pytest.raises(ValueError, match="batch_size must be a number of questions"):
            plugin.RadioVLM("folder", batch_size=wrong)
    for method in (lm.loglikelihood, lm.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="radio_vlm"):
            method([])
    lm.clean()
    assert lm.cleaned and lm.generator is None, "the model can be freed before a judge is loaded"


def test_the_entry_point_names_the_class(plugin):
    from eval.plugins.lmms_eval import manifests

    manifest = manifests()
    module, name = manifest.chat_class_path.rsplit(".", 1)
    assert manifest.model_id == "radio_vlm" and getattr(importlib.import_module(module), name) is plugin.RadioVLM
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = setup["options.entry_points"]["lmms_eval.models"].strip()
    assert points == f"radio_vlm = {manifests.__module__}:{manifests.__name__}"


def test_nothing_but_the_plugin_imports_lmms_eval():
    """Importing any of our modules needs no lmms-eval, but for the one that lmms-eval itself imports."""
    model = "eval.plugins.lmms_eval_model"
    folders = ("eval", "vlm", "training", "encoders", "projectors", "llm")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {}
    for path in files:
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        if any(name == model or name.split(".")[0] == "lmms_eval" for name in names):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = names
    assert list(found) == [model]
