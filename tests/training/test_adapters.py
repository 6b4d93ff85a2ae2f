"""LoRA stages: one folder with everything that trained, resumed exactly, gone on with, merged; refusals before data."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.helpers.stage_runs import PROBE, launch, losses, mixed_corpus, save_small_vlm
from training.adapters import attach_adapters, finish_adapters
from training.environment import Machine
from training.loading import load_model, weight_dtype
from training.quantization import quantization_options
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.stage import train_stage
from training.trainable import make_trainable
from vlm.adapted_model import record_of
from vlm.adapter_folder import AdapterBase, write_base

MACHINE = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
ARGS = SimpleNamespace(bf16=False, deepspeed=None)
TARGETS = "in_proj out_proj q_proj k_proj v_proj o_proj up_proj down_proj".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    save_small_vlm(folder / "stage0")
    mixed_corpus(folder / "data")
    mixed_corpus(folder / "val", n=6)
    return folder


def words(folder: Path, out: str, *more: str) -> list[str]:
    """A stage of ten steps, adapters of rank 4, projector and rows of new tokens in full."""
    return [
        f"model={folder / 'stage0'}", f"output_dir={folder / out}", f"data.sources=[{{path: {folder / 'data'}}}]",
        f"data.eval_sources=[{{path: {folder / 'val'}}}]", "data.max_length=256", "max_steps=10", "log_steps=1",
        "per_device_batch_size=2", "learning_rate=2e-2", "adapter={rank: 4, alpha: 8}", "modules.vision.freeze=true",
        "modules.new_embeddings.freeze=false", "modules.text.lr=1e-2", *more,
    ]  # fmt: skip


def recipe(folder: Path, out: str, *more: str):
    return load_recipe(None, words(folder, out, *more))


def run(folder: Path, out: str, *more: str) -> Path:
    train_stage(recipe(folder, out, *more), MACHINE)
    return folder / out


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    return run(folder, "whole", "save_steps=6")


def test_a_stage_starts_from_the_base_at_its_own_revision(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    write_base(tmp_path, AdapterBase("org/base", "a" * 40))
    seen = []
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda name: None)
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda name, **options: seen.append((name, options["revision"]))
    )
    with pytest.raises(RecipeError, match="has no processor"):
        load_model(load_recipe(None, [f"model={tmp_path}", "adapter.rank=4"]), ARGS)
    assert seen == [("org/base", "a" * 40)]


def heldout(path: Path) -> dict:
    return json.loads((path / "heldout.json").read_text())


def test_one_folder_holds_everything_that_trained(folder, whole):
    assert losses(whole)[10] < losses(whole)[1] - 0.2
    names = {name.removeprefix("base_model.model.") for name in load_file(whole / "adapter_model.safetensors")}
    assert sum("lora_A" in name for name in names) == len(TARGETS)
    assert {name for name in names if "lora_" not in name} == {
        "multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_2.weight",
        "multi_modal_projector.layer_norm.weight",
        "language_model.model.embeddings.token_adapter.trainable_tokens_delta",
    }  # fmt: skip
    assert not (whole / "config.json").exists() and not (whole / "model.safetensors").exists()
    settings = json.loads((whole / "adapter_config.json").read_text())
    assert settings["modules_to_save"] == ["multi_modal_projector"]
    assert settings["base_model_name_or_path"] == str(folder / "stage0")
    rows = {row["group"]: row for row in json.loads((whole / "trainable.json").read_text())}
    assert rows["text_adapter/matrix"]["lr"] == 1e-2 and rows["projector/matrix"]["lr"] == 2e-2
    assert {name for name, row in rows.items() if not row["trainable"]} == {"vision/frozen", "text/frozen"}
    assert AutoProcessor.from_pretrained(whole).tokenizer is not None


def test_inspect_shows_the_table_of_the_run(folder, whole, tmp_path, capsys):
    from training.freezing import format_table
    from vlm.cli.main import main

    (tmp_path / "stage.yaml").write_text(json.dumps(json.loads((whole / "recipe.json").read_text())))
    assert main(["inspect", "--model", str(folder / "stage0"), "--recipe", str(tmp_path / "stage.yaml")]) == 0
    shown = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    rows = format_table(json.loads((whole / "trainable.json").read_text())).splitlines()
    assert {" ".join(row.split()) for row in rows} <= shown


def test_opened_folder_is_the_model_that_was_trained(folder, whole):
    """The next stages start with the held-out loss at which this one ended: on the adapter, and on the merged model."""
    on = run(folder, "on", f"model={whole}", "max_steps=1")
    assert heldout(on)["before"]["loss"] == pytest.approx(heldout(whole)["after"]["loss"], rel=1e-6)
    assert json.loads((on / "adapter_base.json").read_text()) == json.loads((whole / "adapter_base.json").read_text())
    merged = run(folder, "merged", f"model={whole}", "max_steps=1", "adapter={rank: 0}")
    assert heldout(merged)["before"]["loss"] == pytest.approx(heldout(whole)["after"]["loss"], rel=1e-5)
    assert (merged / "config.json").exists() and not (merged / "adapter_config.json").exists()
    assert heldout(whole)["before"]["loss"] > heldout(whole)["after"]["loss"] + 0.1, "the control"


def test_base_weights_do_not_move(folder, whole):
    base, model = (AutoModelForImageTextToText.from_pretrained(path) for path in (folder / "stage0", whole))
    own = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    moved = {name for name, value in base.state_dict().items() if not torch.equal(own[name], value)}
    table = "language_model.model.embeddings.weight"
    assert table in moved and {name for name in moved if not name.startswith("multi_modal_projector.")} == {table}
    rows = (own[table] != base.state_dict()[table]).any(dim=1).nonzero().flatten().tolist()
    new = json.loads((whole / "adapter_config.json").read_text())["trainable_token_indices"]
    assert rows and set(rows) <= set(new[table.removesuffix(".weight")])


def test_resume_goes_on_as_if_never_stopped(folder, whole):
    resumed = run(folder, "resumed", f"resume={whole / 'checkpoint-6'}")
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    first, second = (load_file(path / "adapter_model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    size = sum(path.stat().st_size for path in (whole / "checkpoint-6").glob("*.safetensors"))
    assert size < 0.5 * (folder / "stage0/model.safetensors").stat().st_size


def test_gradient_checkpointing_changes_nothing(folder, whole):
    found = losses(run(folder, "checkpointing", "gradient_checkpointing=true", "max_steps=3", "schedule=constant",
                       "warmup_ratio=0"))  # fmt: skip
    expected = losses(run(folder, "plain", "max_steps=3", "schedule=constant", "warmup_ratio=0"))
    assert found == pytest.approx(expected, rel=1e-5)


def prepared(folder: Path, *more: str, args=ARGS):
    described = recipe(folder, "none", *more)
    model, processor = load_model(described, args)
    model = attach_adapters(model, described)
    groups, _ = make_trainable(model, processor, described)
    finish_adapters(model, processor, described, args)
    return model, processor, groups


def test_packed_rows_give_the_losses_of_samples_alone(folder):
    model, processor, _ = prepared(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    asked = [[{"role": "user", "content": f"number {i}?"}, {"role": "assistant", "content": str(10 * i)}]
             for i in range(3)]  # fmt: skip
    encoded = [processor.encode(messages) for messages in asked]
    one_each = [model(**processor.collate([sample]), num_items_in_batch=1).loss for sample in encoded]
    packed = model(**processor.collate_packed([encoded]), num_items_in_batch=1).loss
    assert packed.item() == pytest.approx(sum(one_each).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "modules"),
    [
        (("modules.projector.freeze=true",), []),
        (("modules.vision.freeze=false",), ["multi_modal_projector", "vision_model"]),
        (
            ("modules.vision.freeze=false", "modules.vision.norms_only=true"),
            ["multi_modal_projector", "vision_model.encoder.layer.0.norm1", "vision_model.encoder.layer.0.norm2"],
        ),
    ],
    ids=["factors alone", "encoder", "its norms"],
)
def test_the_folder_is_as_small_as_what_trains(folder, more, modules):
    assert record_of(prepared(folder, *more)[0]).modules == modules


def test_under_bf16_only_what_trains_is_fp32(folder):
    args = SimpleNamespace(bf16=True, deepspeed=None)
    assert weight_dtype(recipe(folder, "none"), args) == torch.bfloat16
    assert weight_dtype(recipe(folder, "none", "adapter={rank: 0}"), args) == torch.float32
    model, _, groups = prepared(folder, args=args)
    assert {parameter.dtype for group in groups for parameter in group["params"]} == {torch.float32}
    frozen = [p.dtype for n, p in model.named_parameters() if not p.requires_grad and n.endswith("base_layer.weight")]
    assert frozen and set(frozen) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("optimizer=muon",), "modules.text.optimizer=adamw"),
        (("modules.text.norms_only=true",), "modules.text.norms_only do not work together"),
        (("adapter={rank: 4, quantize: nf4}", "zero=zero3"), "use train.zero=zero2"),
        (("adapter={quantize: nf4}",), "quantized weights cannot train"),
    ],
    ids=["muon", "norms", "zero3", "no rank"],
)
def test_recipes_that_cannot_run_are_refused(folder, more, message):
    with pytest.raises(RecipeError, match=message):
        recipe(folder, "none", *more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("adapter.targets=[conv1d]",), "'conv1d' is refused"),
        (("adapter.targets=[nothing]",), "matches no layer"),
        (("model={whole}", "adapter.rank=8"), "set adapter.rank=4 to train it on"),
        (("model={whole}", "adapter.alpha=9"), "adapter.alpha = 9"),
        (("model={whole}", "adapter.targets=[q_proj]"), "names 1 layers.*sits on 8"),
        (("output_dir={stage0}",), "holds a whole model"),
        (("output_dir={whole}", "adapter={rank: 0}"), "holds an adapter"),
    ],
    ids=["refused target", "no target", "rank", "alpha", "targets", "beside a model", "beside an adapter"],
)
def test_starts_that_cannot_go_on_are_refused(folder, whole, more, message):
    places = {"whole": whole, "stage0": folder / "stage0"}
    more = [word.format_map(places) if word.startswith(("model", "output")) else word for word in more]
    with pytest.raises(RecipeError, match=message):
        prepared(folder, *more)


def test_quantization_is_refused_without_its_library_or_gpu(folder, monkeypatch):
    nf4 = "adapter={rank: 4, quantize: nf4}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install bitsandbytes"):
        prepared(folder, nf4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="needs a GPU"):
        prepared(folder, nf4)
    config = quantization_options(recipe(folder, "none", nf4))["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    eight = quantization_options(recipe(folder, "none", "adapter={rank: 4, quantize: int8}"))["quantization_config"]
    assert eight.load_in_8bit and quantization_options(recipe(folder, "none")) == {}


def launched(folder: Path, out: str, *more: str, **environment: str) -> int:
    environment["STAGE_PROBE_OUT"] = str(folder / out / "probe")
    return launch(PROBE, words(folder, out, "per_device_batch_size=1", "save_steps=4", *more), **environment).returncode


def test_two_processes_under_zero2_give_the_losses_of_one(folder, whole):
    assert launched(folder, "zero2", "zero=zero2") == 0
    assert losses(folder / "zero2") == pytest.approx(losses(whole), abs=1e-4)
    states = next((folder / "zero2/checkpoint-8").glob("global_step*/mp_rank_00_model_states.pt"))
    held = torch.load(states, weights_only=False)["module"]
    frozen = [name for name in held if "base_layer" in name or "vision_model.encoder" in name]
    assert held and not frozen, "the frozen base is on disk already"


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_kill_and_resume_under_zero(folder, whole, zero):
    out = f"{zero}_killed"
    assert launched(folder, out, f"zero={zero}", STAGE_PROBE_KILL="1:6") != 0
    assert not (folder / out / "adapter_model.safetensors").exists()
    assert launched(folder, out, f"zero={zero}", "resume=true") == 0
    assert launched(folder, f"{zero}_whole", f"zero={zero}") == 0
    assert losses(folder / out) == pytest.approx(losses(folder / f"{zero}_whole"), rel=1e-6)
    assert losses(folder / out) == pytest.approx(losses(whole), abs=1e-4)
    first, second = (load_file(path / "adapter_model.safetensors") for path in (folder / out, folder / f"{zero}_whole"))
    assert all(torch.equal(first[name], second[name]) for name in first)
