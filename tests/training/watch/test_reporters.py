"""Where figures go: the library's own callbacks get what the logs hold; a missing package is named."""

import importlib.util
import sys
import types

import pytest

from tests.helpers.watched_stage import prepare, run
from training.recipe import RecipeError
from training.watch.reporters import check_reporters, reporters


def stub(monkeypatch, name: str, module: types.ModuleType) -> types.ModuleType:
    """Puts a stand-in for a package where it is looked for, with the interface that transformers' callback uses."""
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    module.__version__ = "1.0.0"
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{name}_available", lambda: True)
    return module


class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)


def test_trackio_is_given_the_figures(tmp_path, monkeypatch):
    logged, opened = [], []
    trackio = stub(monkeypatch, "trackio", types.ModuleType("trackio"))
    trackio.init = lambda **options: opened.append(options)
    trackio.log, trackio.finish, trackio.config = logged.append, lambda: opened.append("finished"), Config()
    space = types.SimpleNamespace(get=lambda: None)
    trackio.context_vars = types.SimpleNamespace(current_space_id=space, current_project=space)
    prepare(tmp_path)
    run(tmp_path, "out", "watch.report_to=[trackio]")
    assert opened[0]["project"] == "radio-vlm" and opened[0]["name"].endswith("/out") and opened[-1] == "finished"
    assert not (tmp_path / "out/tensorboard").exists()
    steps = [entry for entry in logged if "train/loss" in entry]
    assert [entry["train/global_step"] for entry in steps] == [1, 2, 3, 4]
    assert {"train/source_loss/data", "train/tokens_per_second", "train/lr/text/other"} <= set(steps[0])


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("secret", None)])
def test_wandb_without_a_key_writes_offline(tmp_path, monkeypatch, key, mode):
    wandb = stub(monkeypatch, "wandb", types.ModuleType("wandb"))
    opened = []
    wandb.run, wandb.api = None, types.SimpleNamespace(api_key=key)
    wandb.init = lambda **options: opened.append(options)
    wandb.setup = lambda: types.SimpleNamespace(settings=types.SimpleNamespace(mode="online"))
    args = types.SimpleNamespace()
    (callback,) = reporters(["wandb"], tmp_path / "runs/stage1", args)
    assert type(callback).__name__ == "WandbCallback"
    assert opened == [
        {"project": "radio-vlm", "name": "runs/stage1", "dir": str(tmp_path / "runs/stage1"), "mode": mode}
    ]


def test_a_missing_package_is_named_with_the_way_out(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    message = r"wandb, which is not installed: pip install wandb, or set watch.report_to=\[tensorboard\]"
    with pytest.raises(RecipeError, match=message):
        check_reporters(["wandb", "tensorboard"])
    check_reporters(["tensorboard"])


def test_no_reporter(tmp_path):
    assert reporters([], tmp_path, types.SimpleNamespace()) == []
