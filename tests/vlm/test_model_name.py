"""What the command line says of a model, device and dtype: refused at once and in one line, or let through."""

import socket

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from eval.backends import open_backend
from vlm.model_name import check_device, check_dtype, check_model, devices


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that does what `answers` says; `asked` lists the ids it was asked for."""
    monkeypatch.chdir(tmp_path)

    class Hub:
        answers = None
        asked = []

        def model_info(self, name, timeout):
            self.asked.append(name)
            if self.answers is not None:
                raise self.answers

    Hub.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def not_found():
    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    Exception.__init__(error, "404")
    return error


@pytest.mark.parametrize(
    "answer, words",
    [
        (not_found(), "the hub has no model of this name"),
        (socket.gaierror(-2, "Name or service not known"), "the hub cannot be reached (gaierror: "),
        (OfflineModeIsEnabled("offline"), "not in the cache, and the hub is not asked (HF_HUB_OFFLINE)"),
    ],
)
def test_a_misspelt_folder_is_told_at_once(hub, tmp_path, answer, words):
    """The hub is asked once, not for a minute, and the checkpoints beside the misspelt one are named."""
    hub.answers = answer
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/config.json").write_text("{}")
    with pytest.raises(ValueError) as error:
        open_backend("runs/nope")
    text = str(error.value)
    assert text.startswith("--model: no folder runs/nope, and ") and words in text and "\n" not in text
    assert text.endswith("; checkpoints in runs: runs/demo") and hub.asked == ["runs/nope"]


def test_an_id_that_the_hub_knows_passes_even_beside_a_folder_of_its_owner(hub, tmp_path):
    (tmp_path / "nvidia").mkdir()
    check_model("nvidia/some-model")
    assert hub.asked == ["nvidia/some-model"]


def test_an_id_in_the_cache_passes_without_a_network(hub, tmp_path, monkeypatch):
    hub.answers = OSError("no network")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: f"/cache/{file}")
    check_model("owner/model")
    assert not hub.asked


@pytest.mark.parametrize("name", ["./nope", "/nope/a", "~/nope", "a/b/c", "nope"])
def test_paths_are_never_asked_of_the_hub(hub, name):
    with pytest.raises(ValueError, match=f"^--model: no folder {name}$"):
        check_model(name)
    assert not hub.asked


def test_a_folder_around_checkpoints_names_them(hub, tmp_path):
    run = tmp_path / "runs/demo"
    for name, config in (("stage4", "config.json"), ("export", "config.json"), ("lora", "adapter_config.json")):
        (run / name).mkdir(parents=True)
        (run / name / config).write_text("{}")
    (run / "logs").mkdir()
    with pytest.raises(ValueError) as error:
        open_backend("runs/demo")
    assert str(error.value) == (
        "--model: runs/demo holds no checkpoint (no config.json); checkpoints in runs/demo: runs/demo/export, "
        "runs/demo/lora, runs/demo/stage4"
    )
    with pytest.raises(ValueError, match=r"runs/demo/logs holds no checkpoint \(no config.json\)$"):
        check_model("runs/demo/logs")
    check_model("runs/demo/lora")
    assert not hub.asked


@pytest.mark.parametrize("dtype", ["foo", "int8", "nn", "torch.float32", "float31"])
def test_dtypes_that_are_none(dtype):
    with pytest.raises(ValueError, match=f"^--dtype {dtype}: known are auto, float32, bfloat16, float16"):
        check_dtype(dtype)


def test_dtypes_and_devices_that_are_some():
    for dtype in ("auto", "bfloat16", "half", torch.float32):
        check_dtype(dtype)
    for device in (None, "cpu", torch.device("cpu"), *devices()):
        check_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "xpu"])
def test_devices_that_are_not_there(device):
    with pytest.raises(ValueError, match=f"^--device {device}: there is cpu") as error:
        check_device(device)
    assert "\n" not in str(error.value)


def test_both_are_looked_at_before_loading(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")  # of no known type: loading it would be an error of its own
    with pytest.raises(ValueError, match="^--dtype foo"):
        open_backend(str(tmp_path), dtype="foo")
    with pytest.raises(ValueError, match="^--device cuda:99"):
        open_backend(str(tmp_path), device="cuda:99")
