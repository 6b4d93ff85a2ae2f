"""Every kind of source opens as what it is, offline too; what is missing, cut short or tampered with is named."""

import argparse
import json
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encoders.checkpoint_sources import open_checkpoint
from encoders.errors import RadioCheckpointError

STATE = {"base_model.norm.weight": torch.arange(4.0), "input_conditioner.norm_mean": torch.zeros(3, 1, 1)}
ARGS = argparse.Namespace(model="vit_base", teachers=[{"name": "clip"}], dtype=torch.float16)
NATIVE, OURS, REMOTE = {"model_type": "radio"}, {"model_type": "radio_encoder"}, {"args": {"model": "vit_base"}}


def folder(path: Path, config: dict | str | None, weights: str | None = "model.safetensors") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights == "model.safetensors":
        save_file(STATE, path / weights)
    elif weights == "pytorch_model.bin":
        torch.save(STATE, path / weights)
    elif weights == "sharded":
        index = {}
        for i, (name, tensor) in enumerate(STATE.items()):
            index[name] = f"model-{i}.safetensors"
            save_file({name: tensor}, path / index[name])
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def hub_file(path: Path, **content) -> Path:
    torch.save({"state_dict": STATE, "args": ARGS, "epoch": 1, **content}, path)
    return path


def assert_holds(checkpoint, kind: str, state: dict = STATE) -> None:
    assert checkpoint.kind == kind
    assert set(checkpoint.tensors.keys()) == set(state)
    assert all(torch.equal(checkpoint.tensors.read(name), state[name]) for name in state)


@pytest.mark.parametrize("weights", ["model.safetensors", "sharded", "pytorch_model.bin"])
@pytest.mark.parametrize("config, kind", [(NATIVE, "native"), (OURS, "ours"), (REMOTE, "remote_code")])
def test_folders(tmp_path, config, kind, weights):
    checkpoint = open_checkpoint(folder(tmp_path, config, weights))
    assert_holds(checkpoint, kind)
    assert checkpoint.config == config and checkpoint.args == config.get("args", {})
    assert checkpoint.origin == checkpoint.name == str(tmp_path) and not checkpoint.ema


def test_args_decide_even_beside_a_type(tmp_path):
    """Remote code writes a `model_type` of its own, or none; transformers would read such a config as ViT-H."""
    assert open_checkpoint(folder(tmp_path, {"model_type": "radio", **REMOTE})).kind == "remote_code"


def test_safetensors_come_before_pickles(tmp_path):
    folder(tmp_path, NATIVE)
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert_holds(open_checkpoint(tmp_path), "native")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weight_file_with_its_config_beside_it(tmp_path, name):
    checkpoint = open_checkpoint(folder(tmp_path, REMOTE, name) / name)
    assert_holds(checkpoint, "remote_code")
    (tmp_path / "config.json").unlink()
    with pytest.raises(RadioCheckpointError, match=f"{name} .*there is no config.json beside it"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth.tar", ".pth", ".pt"])
def test_hub_files(tmp_path, suffix):
    checkpoint = open_checkpoint(hub_file(tmp_path / f"x{suffix}"))
    assert_holds(checkpoint, "hub")
    assert checkpoint.args == vars(ARGS) and checkpoint.config == {} and not checkpoint.ema


def test_moving_average_is_preferred_and_said(tmp_path):
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    checkpoint = open_checkpoint(hub_file(tmp_path / "x.pth.tar", state_dict_ema=other))
    assert_holds(checkpoint, "hub", other)
    assert checkpoint.ema
    checkpoint = open_checkpoint(hub_file(tmp_path / "x.pth.tar", state_dict_ema=None))
    assert_holds(checkpoint, "hub")
    assert not checkpoint.ema


def test_prefix_of_parallel_training_comes_off(tmp_path):
    checkpoint = open_checkpoint(hub_file(tmp_path / "x.pth", state_dict={f"module.{k}": v for k, v in STATE.items()}))
    assert_holds(checkpoint, "hub")
    both = {"module.a": torch.ones(1), "a": torch.ones(1)}
    with pytest.raises(RadioCheckpointError, match="'a' is there with and without `module.`"):
        open_checkpoint(hub_file(tmp_path / "x.pth", state_dict=both))


@pytest.mark.parametrize("args", [types.SimpleNamespace(model="m"), {"model": "m"}])
def test_arguments_of_other_kinds(tmp_path, args):
    assert open_checkpoint(hub_file(tmp_path / "x.pth", args=args)).args == {"model": "m"}


def test_folder_of_one_hub_file(tmp_path):
    hub_file(tmp_path / "x_half.pth.tar")
    assert open_checkpoint(tmp_path).kind == "hub"
    hub_file(tmp_path / "y_half.pth.tar")
    with pytest.raises(RadioCheckpointError, match=r"choose one of x_half\.pth\.tar, y_half\.pth\.tar"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, filename="y_half.pth.tar").origin.endswith("y_half.pth.tar")
    with pytest.raises(RadioCheckpointError, match=r"has no z\.pth; looked at x_half"):
        open_checkpoint(tmp_path, filename="z.pth")


def cached(cache: Path, hub_id: str, config: dict, weights: str) -> Path:
    """A repository as the Hugging Face cache keeps it."""
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    return folder(repo / "snapshots" / ("0" * 40), config, weights)


@pytest.mark.parametrize("weights", ["model.safetensors", "sharded", "pytorch_model.bin"])
@pytest.mark.parametrize("source", ["nvidia/C-RADIOv4-H", "c-radio_v4-h", "C-RADIO_v4-H"])
def test_ids_and_releases_resolve_through_the_cache(tmp_path, source, weights):
    snapshot = cached(tmp_path, "nvidia/C-RADIOv4-H", REMOTE, weights)
    hub_file(snapshot / "c-radio_v4-h_half.pth.tar")
    options = {"cache_dir": tmp_path, "local_files_only": True}
    checkpoint = open_checkpoint(source, **options)
    assert_holds(checkpoint, "remote_code")
    assert checkpoint.origin == "nvidia/C-RADIOv4-H" and checkpoint.name == source
    assert open_checkpoint(source, filename="c-radio_v4-h_half.pth.tar", **options).kind == "hub"


@pytest.mark.parametrize("source", ["nvidia/C-RADIOv4-H", "c-radio_v4-h", "name-alone"])
def test_ids_that_are_not_cached(tmp_path, source):
    with pytest.raises(RadioCheckpointError, match=f"'{source}' is no RADIO checkpoint: .*cache.*offline"):
        open_checkpoint(source, cache_dir=tmp_path, local_files_only=True)


def test_cached_id_without_weights(tmp_path):
    cached(tmp_path, "a/b", NATIVE, None)
    with pytest.raises(RadioCheckpointError, match="a/b has a config.json, but none of model.safetensors"):
        open_checkpoint("a/b", cache_dir=tmp_path, local_files_only=True)


NO_IDS = ("/no/such/folder", "no/such/folder", "./x", "x.pth.tar", "a/b.safetensors", "a b", "")


@pytest.mark.parametrize("source", NO_IDS)
def test_paths_that_do_not_exist_are_no_ids(source, tmp_path):
    with pytest.raises(RadioCheckpointError, match=f"there is no folder or file '{source}'"):
        open_checkpoint(source, cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    "release, message", [("radio_v2.5-h", "no Hugging Face repository"), ("e-radio_v2", "E-RADIO")]
)
def test_releases_that_cannot_be_fetched(release, message):
    with pytest.raises(RadioCheckpointError, match=f"release '{release}' .*{message}"):
        open_checkpoint(release)


@pytest.mark.parametrize("config, message", [
    ({"model_type": "siglip"}, "model_type is 'siglip'"),
    ({"model_type": "radio_vlm"}, "model_type is 'radio_vlm'"),
    ({}, "model_type is None"),
    ({"args": [1]}, "`args` is not an object"),
    ([1], "not a JSON object"),
    ("{", "config.json cannot be read"),
])  # fmt: skip
def test_configs_of_something_else(tmp_path, config, message):
    folder(tmp_path, config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(RadioCheckpointError, match=message) as error:
        open_checkpoint(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)


def test_folders_that_lack_something(tmp_path):
    with pytest.raises(RadioCheckpointError, match=r"no RADIO checkpoint: .*looked at nothing"):
        open_checkpoint(tmp_path)
    folder(tmp_path, NATIVE, None)
    with pytest.raises(RadioCheckpointError, match="has a config.json, but none of model.safetensors"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RadioCheckpointError, match="notes.txt is no checkpoint"):
        open_checkpoint(tmp_path / "notes.txt")


def test_shards_that_are_missing_or_elsewhere(tmp_path):
    path = folder(tmp_path / "model", NATIVE, "sharded")
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    (path / "model-1.safetensors").rename(tmp_path / "model-1.safetensors")
    with pytest.raises(RadioCheckpointError, match="names the shard model-1.safetensors, which .*model does not have"):
        open_checkpoint(path)
    for bad in ("../model-1.safetensors", str(tmp_path / "model-1.safetensors"), "..", "", "a\\b", 3):
        index.write_text(json.dumps({"weight_map": {**weight_map, "base_model.norm.weight": bad}}))
        with pytest.raises(RadioCheckpointError, match="'base_model.norm.weight' is not a file of its folder"):
            open_checkpoint(path)
    name = "input_conditioner.norm_mean"
    index.write_text(json.dumps({"weight_map": {**weight_map, name: "model-0.safetensors"}}))
    with pytest.raises(RadioCheckpointError, match=f"'{name}' is in model-0.safetensors, and it is not"):
        open_checkpoint(path)
    index.write_text("{}")
    with pytest.raises(RadioCheckpointError, match="has no `weight_map`"):
        open_checkpoint(path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_weights_cut_short(tmp_path, weights):
    path = folder(tmp_path, NATIVE, weights) / weights
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RadioCheckpointError, match=f"{weights}.* (is not|ends before)"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content, message", [
    ({"state_dict": {}}, "`state_dict` is not a dict of weights"),
    ({"state_dict": [1]}, "`state_dict` is not a dict of weights"),
    ({"state_dict": {"a": 3}}, "holds a int under 'a'"),
    ({"state_dict": {3: torch.ones(1)}}, "under 3"),
    ({"state_dict": {"a": torch.ones(2, 2).to_sparse()}}, "'a' is sparse"),
    ({"state_dict": {"a": torch.ones(1)}, "args": 3}, "`args` is a int"),
])  # fmt: skip
def test_hub_files_of_something_else(tmp_path, content, message):
    with pytest.raises(RadioCheckpointError, match=message) as error:
        open_checkpoint(hub_file(tmp_path / "x.pth.tar", **content))
    assert "x.pth.tar" in str(error.value)


def test_hub_file_without_arguments(tmp_path):
    torch.save({"state_dict": STATE}, tmp_path / "x.pth.tar")
    with pytest.raises(RadioCheckpointError, match=r"x\.pth\.tar has no training arguments"):
        open_checkpoint(tmp_path / "x.pth.tar")
