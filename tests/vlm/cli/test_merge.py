"""`radio-vlm merge`, and the commands that open an adapter folder as it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from llm import lora_config
from llm.lora import lora_pairs
from tests.helpers.stage_runs import save_small_vlm
from vlm import adapted_model
from vlm.adapted_model import inject
from vlm.adapter_folder import base_of
from vlm.cli.main import main
from vlm.cli.merge import check_inputs, logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base and an adapter that does something."""
    folder = tmp_path_factory.mktemp("merge")
    base = save_small_vlm(folder / "base")
    model, processor = (part.from_pretrained(base) for part in (AutoModelForImageTextToText, AutoProcessor))
    config = lora_config(model, rank=4, targets=["q_proj", "v_proj", "up_proj"])
    config.modules_to_save = ["multi_modal_projector"]
    inject(model, config, base_of(str(base)))
    torch.manual_seed(0)
    with torch.no_grad():
        for _, _, b in lora_pairs(model):
            b.normal_(std=0.3)
        for parameter in model.multi_modal_projector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder / "adapter")
    processor.save_pretrained(folder / "adapter")
    return folder


def merge(*words) -> int:
    return main(["merge", *map(str, words)])


def test_merged_model_answers_as_base_and_adapter_do(folder, tmp_path, capsys):
    assert merge(folder / "adapter", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert shown.count("bound 0.0001") == 4 and "text and a drawn picture" in shown and "rounding" not in shown
    places = (tmp_path / "out", folder / "adapter")
    out, adapted = (AutoModelForImageTextToText.from_pretrained(path) for path in places)
    batches = check_inputs(AutoProcessor.from_pretrained(tmp_path / "out"), [])
    assert [sorted(batch) for _, batch in batches][0] != [sorted(batch) for _, batch in batches][1], "one has pixels"
    plain = logits(AutoModelForImageTextToText.from_pretrained(folder / "base"), batches)
    for (_, found), (_, expected), (_, other) in zip(logits(out, batches), logits(adapted, batches), plain):
        assert (found - expected).abs().max() <= 1e-5 < 1e-2 < (other - expected).abs().max()
    assert (tmp_path / "out/generation_config.json").is_file() and not (tmp_path / "out/adapter_config.json").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_rounding_is_told_apart_and_what_must_stay_fp32_does(folder, tmp_path, capsys):
    assert merge(folder / "adapter", tmp_path / "out", "--dtype", "bfloat16") == 0
    shown = capsys.readouterr().out
    assert shown.count("(bound") == 2 and shown.count("rounding to bfloat16") == 2
    dtypes = {name: tensor.dtype for name, tensor in load_file(tmp_path / "out/model.safetensors").items()}
    assert dtypes["multi_modal_projector.linear_1.weight"] == torch.bfloat16
    kept = {dtype for name, dtype in dtypes.items() if "A_log" in name or "position_embedding" in name}
    assert kept == {torch.float32}
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_a_merge_that_changes_answers_leaves_nothing(folder, tmp_path, capsys, monkeypatch):
    def wrong(model):
        with torch.no_grad():
            right(model).multi_modal_projector.linear_1.weight[0, 0] += 1.0

    right = adapted_model.merge
    monkeypatch.setattr(adapted_model, "merge", wrong)
    assert merge(folder / "adapter", tmp_path / "out") == 2
    assert "more than the bound 0.0001: nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_what_was_merged_leaves_nothing(folder, tmp_path, capsys, monkeypatch):
    from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration as Model

    save = Model.save_pretrained

    def damaged(model, *args, **kwargs):
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(1.5)
        return save(model, *args, **kwargs)

    monkeypatch.setattr(Model, "save_pretrained", damaged)
    assert merge(folder / "adapter", tmp_path / "out") == 2
    assert "writing changes the logits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_moved_and_wrong_bases(folder, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(folder / "base", moved)
    adapter = shutil.copytree(folder / "adapter", tmp_path / "adapter")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/not/there"}))
    assert merge(adapter, tmp_path / "out") == 2
    assert "--base DIR" in capsys.readouterr().err
    assert merge(adapter, tmp_path / "out", "--base", moved) == 0
    other = save_small_vlm(tmp_path / "other", seed=1)
    assert merge(adapter, tmp_path / "second", "--base", other) == 2
    assert "trained on other weights" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{base}", "{new}"), "is no adapter folder"),
        (("{adapter}", "{base}"), "is there already"),
        (("{adapter}", "{new}", "--base", "{adapter}"), "is an adapter itself"),
        (("{new}", "{new}"), "no folder"),
    ],
    ids=["whole model", "full folder", "adapter as base", "nothing"],
)
def test_what_cannot_be_merged_is_refused(folder, tmp_path, capsys, words, message):
    places = {"base": folder / "base", "adapter": folder / "adapter", "new": tmp_path / "new"}
    assert merge(*(word.format_map(places) for word in words)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_chat_and_inspect_open_the_adapter_itself(folder, capsys):
    assert main(["chat", "--model", str(folder / "adapter"), "--question", "number 3?", "--max-new-tokens", "2"]) == 0
    capsys.readouterr()
    assert main(["inspect", "--model", str(folder / "adapter")]) == 0
    assert "multi_modal_projector" in capsys.readouterr().out


def test_evaluation_opens_the_adapter_itself(folder):
    from eval.backends.opening import load

    model, processor = load(str(folder / "adapter"), "cpu", "auto", trust_remote_code=False)
    assert any(True for _ in lora_pairs(model)) and processor.tokenizer is not None


def test_export_says_to_merge_first(folder, tmp_path, capsys):
    assert main(["export", str(folder / "adapter"), str(tmp_path / "out")]) == 2
    assert f"radio-vlm merge {folder / 'adapter'} OUT" in capsys.readouterr().err
