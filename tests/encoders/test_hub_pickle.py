"""Hub files: what they may hold comes back, code in them is refused and does not run, damage is named."""

import argparse
import os
import random
import subprocess
import sys
import types
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from encoders.errors import RadioCheckpointError
from encoders.hub_pickle import HubTensors, load_hub_file

FORMATS = {"zip": True, "legacy": False}


class RunsCode:
    """Pickles as a call of `os.system`."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


def save(path: Path, content: object, form: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form])
    return path


def weights() -> OrderedDict:
    torch.manual_seed(0)
    odd = torch.randn(3, 7).t()
    fused = torch.randn(6, 4)
    return OrderedDict(
        a=torch.randn(4, 5),
        odd=odd,
        first=fused[:2],
        second=fused[2:],
        again=fused,
        half=torch.randn(3).bfloat16(),
        scalar=torch.tensor(2),
        none=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )


def arguments() -> argparse.Namespace:
    teachers = [{"name": "clip", "use_summary": None, "sizes": [1, 2.5, (3,)]}, OrderedDict(name="sam")]
    return argparse.Namespace(
        model="vit", dtype=torch.bfloat16, teachers=teachers, inner=types.SimpleNamespace(x=True), device="cpu"
    )


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_in_a_hub_file_comes_back(tmp_path, form):
    path = save(tmp_path / "x.pth.tar", {"state_dict": weights(), "args": arguments(), "epoch": 3}, form)
    content = load_hub_file(path)
    assert content["args"] == arguments() and content["epoch"] == 3
    tensors = HubTensors(path, content["state_dict"])
    assert tensors.keys() == list(weights())
    for name, expected in weights().items():
        read = tensors.read(name)
        assert torch.equal(read, expected) and read.is_contiguous()
        assert tensors.shape(name) == tuple(expected.shape) and tensors.dtype(name) == expected.dtype
    assert torch.equal(tensors.read("again", (1, 4)), weights()["again"][1:4])
    assert torch.equal(tensors.read("odd", (2, 5)), weights()["odd"][2:5])


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_read_is_a_copy(tmp_path, form):
    path = save(tmp_path / "x.pth", {"state_dict": weights()}, form)
    tensors = HubTensors(path, load_hub_file(path)["state_dict"])
    tensors.read("first").zero_()
    assert torch.equal(tensors.read("again"), weights()["again"])
    assert tensors.read("first", (0, 1)).untyped_storage().nbytes() == 4 * 4


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", ["args", "state_dict", "top"])
def test_code_is_refused_and_does_not_run(tmp_path, form, where):
    marker = tmp_path / "it-ran"
    bad = RunsCode(marker)
    content = {"state_dict": weights(), "args": arguments()}
    if where == "args":
        content["args"].teachers.append(bad)
    elif where == "state_dict":
        content["state_dict"]["z"] = bad
    else:
        content = {**content, "hook": bad}
    path = save(tmp_path / "bad.pth.tar", content, form)
    with pytest.raises(RadioCheckpointError, match=r"bad\.pth\.tar contains 'posix\.system'.*not run"):
        load_hub_file(path)
    assert not marker.exists()


def test_that_code_would_run_otherwise(tmp_path):
    """The control of the test above: the file is dangerous in the hands of the plain unpickler."""
    marker = tmp_path / "it-ran"
    path = save(tmp_path / "bad.pth.tar", {"hook": RunsCode(marker)})
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("foreign", [Fraction(1, 2), Path("x"), len, slice(3)], ids=lambda x: type(x).__name__)
def test_foreign_classes_are_refused_by_name(tmp_path, foreign):
    name = foreign.__name__ if callable(foreign) else type(foreign).__name__
    path = save(tmp_path / "bad.pth.tar", {"args": argparse.Namespace(x=foreign)})
    with pytest.raises(RadioCheckpointError, match=f"bad.pth.tar contains '.*{name}'"):
        load_hub_file(path)


def test_what_other_code_admitted_is_refused_here_and_stays_admitted(tmp_path):
    path = save(tmp_path / "bad.pth.tar", {"x": Fraction(1, 2)})
    with torch.serialization.safe_globals([Fraction]):
        before = set(torch.serialization.get_safe_globals())
        assert torch.load(path, weights_only=True)
        with pytest.raises(RadioCheckpointError, match="Fraction"):
            load_hub_file(path)
        assert set(torch.serialization.get_safe_globals()) == before
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_compressed_archives_are_read_not_mapped(tmp_path):
    import zipfile

    path = save(tmp_path / "x.pth.tar", {"state_dict": weights()})
    packed = tmp_path / "packed.pth.tar"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    tensors = HubTensors(packed, load_hub_file(packed)["state_dict"])
    assert all(torch.equal(tensors.read(name), expected) for name, expected in weights().items())


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), "text"], ids=["list", "tensor", "str"])
def test_content_must_be_a_dict(tmp_path, content):
    with pytest.raises(RadioCheckpointError, match="not a dict"):
        load_hub_file(save(tmp_path / "x.pth", content))


def test_missing_file(tmp_path):
    with pytest.raises(RadioCheckpointError, match=r"no\.pth\.tar does not exist"):
        load_hub_file(tmp_path / "no.pth.tar")


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_raise_this_error_and_no_other(tmp_path, form):
    """Cut at many lengths, and with bytes exchanged: either it opens or the error names the file."""
    state = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    whole = save(tmp_path / "whole.pth.tar", {"state_dict": state, "args": arguments()}, form).read_bytes()
    path, generator, refused = tmp_path / "x.pth.tar", random.Random(0), 0

    def attempt(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            content = load_hub_file(path)
            if isinstance(content.get("state_dict"), dict):
                tensors = HubTensors(path, content["state_dict"])
                [tensors.read(name) for name in tensors]
        except RadioCheckpointError as error:
            assert str(path) in str(error)
            return False
        return True

    for length in range(0, len(whole) - 1, len(whole) // 40):
        assert not attempt(whole[:length]), length
    for _ in range(150):
        data = bytearray(whole)
        data[generator.randrange(len(data))] = generator.randrange(256)
        refused += not attempt(bytes(data))
    assert attempt(whole) and refused > 10


MEMORY = """
import os, sys
from encoders.hub_pickle import HubTensors, load_hub_file

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

tensors = HubTensors(sys.argv[1], load_hub_file(sys.argv[1])["state_dict"])
before = resident()
kept = [tensors.read(name) for name in tensors]
print(resident() - before)
content = load_hub_file(sys.argv[1])["state_dict"]
before = resident()
kept += [content[name].clone() for name in content]
print(resident() - before)
"""


def test_memory_of_a_mapped_file_is_given_back(tmp_path):
    """All tensors in memory, and the pages of the file that they were read from not beside them. In a process of its
    own, which has no memory from before to use again."""
    size = 96 << 20
    path = save(tmp_path / "x.pth", {"state_dict": {f"w{i}": torch.ones(size // 2 // 4) for i in range(2)}})
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
    ours, control = map(int, done.stdout.split())
    assert 0.9 * size < ours < 1.2 * size
    assert control > 1.7 * size, "without giving back, it is there twice"
