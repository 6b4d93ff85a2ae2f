"""Safetensors read tensor by tensor: the same values as the library's, memory once, every kind of damage named."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.errors import RadioCheckpointError
from encoders.tensor_files import DTYPES, MAX_HEADER, MemoryTensors, TensorFiles


def make(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = {str(dtype): torch.randint(0, 2, (3, 4)).to(dtype) for dtype in DTYPES.values()}
    tensors |= {"scalar": torch.tensor(2.5), "none": torch.empty(0, 7), "random": torch.randn(6, 5, 2)}
    save_file(tensors, path, {"format": "pt"})
    return tensors


def write(path: Path, header: dict | str, data: bytes) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape=(2,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_every_dtype_and_shape_reads_as_the_library_reads_it(tmp_path):
    make(tmp_path / "x.safetensors")
    expected = load_file(tmp_path / "x.safetensors")
    files = TensorFiles([tmp_path / "x.safetensors"])
    assert set(files.keys()) == set(expected) and len(files) == len(expected) and "random" in files
    for name, tensor in expected.items():
        read = files.read(name)
        assert read.dtype == files.dtype(name) == tensor.dtype
        assert tuple(read.shape) == files.shape(name) == tuple(tensor.shape)
        assert read.reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_rows_are_those_of_the_whole_tensor(tmp_path):
    tensors = make(tmp_path / "x.safetensors")
    files, memory = TensorFiles([tmp_path / "x.safetensors"]), MemoryTensors(tensors)
    for rows in ((0, 2), (2, 4), (5, 6), (3, 3), (0, 6)):
        for reader in (files, memory):
            read = reader.read("random", rows)
            assert torch.equal(read, tensors["random"][slice(*rows)])
            assert read.untyped_storage().nbytes() == (rows[1] - rows[0]) * 40
    with pytest.raises(IndexError):
        files.read("random", (4, 7))


def test_tensors_outlive_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    expected = make(path)["random"]
    read = TensorFiles([path]).read("random")
    path.write_bytes(b"\0" * path.stat().st_size)
    read[0] += 1
    assert torch.equal(read[1:], expected[1:])


MEASURE = """
import os, sys
from pathlib import Path
from safetensors import safe_open
from encoders.tensor_files import TensorFiles

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
files = TensorFiles([sys.argv[1]])
kept = [files.read(name) for name in files]
print(resident() - before)
before = resident()
with safe_open(sys.argv[1], "pt") as mapped:  # the control: mapped pages and copies of them
    kept += [mapped.get_tensor(name).clone() for name in mapped.keys()]
    print(resident() - before)
"""


def test_memory_is_the_size_of_the_file_once(tmp_path):
    """In a process of its own: this one may have room left from other tests."""
    size, path = 96 << 20, tmp_path / "x.safetensors"
    save_file({f"w{i}": torch.ones(size // 2 // 4) for i in range(2)}, path)
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    ours, control = map(int, done.stdout.split())
    assert 0.9 * size < ours < 1.2 * size
    assert control > 1.7 * size


def test_several_files_are_one_mapping(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "2.safetensors")
    files = TensorFiles(
        [tmp_path / "1.safetensors", tmp_path / "2.safetensors"], {"a": "1.safetensors", "b": "2.safetensors"}
    )
    assert files.read("a").tolist() == [1, 1] and files.read("b").tolist() == [0, 0, 0]
    for index in ({"c": "1.safetensors"}, {"a": "2.safetensors"}):
        with pytest.raises(RadioCheckpointError, match="the index says that weight '[ac]' is in"):
            TensorFiles([tmp_path / "1.safetensors", tmp_path / "2.safetensors"], index)
    save_file({"a": torch.ones(2)}, tmp_path / "3.safetensors")
    with pytest.raises(RadioCheckpointError, match="weight 'a' is in both"):
        TensorFiles([tmp_path / "1.safetensors", tmp_path / "3.safetensors"])


BAD = {
    "unknown dtype": ({"a": entry(0, 8, dtype="F33")}, 8, "weight 'a' has the unknown dtype 'F33'"),
    "dtype is no name": ({"a": entry(0, 8, dtype=["F32"])}, 8, "weight 'a' has the unknown dtype"),
    "shape and bytes differ": ({"a": entry(0, 8, shape=(3,))}, 8, r"weight 'a' of shape \[3\] .* cannot have 8 bytes"),
    "ends outside": ({"a": entry(0, 8)}, 4, "ends before weight 'a' does"),
    "begins after its end": ({"a": entry(8, 0)}, 8, "weight 'a' .* cannot have -8 bytes"),
    "negative": ({"a": entry(-8, 0)}, 8, "entry of weight 'a' is not understood"),
    "negative shape": ({"a": entry(0, 8, shape=(-1, -2))}, 8, "entry of weight 'a' is not understood"),
    "fraction": ({"a": entry(0, 8.0)}, 8, "entry of weight 'a' is not understood"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "entry of weight 'a' is not understood"),
    "no object": ({"a": 3}, 8, "entry of weight 'a' is not understood"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "weight 'b' does not begin where"),
    "hole": ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "weight 'b' does not begin where"),
    "bytes left": ({"a": entry(0, 8)}, 12, "has 4 bytes after its last weight"),
    "huge": ({"a": entry(0, 1 << 62, shape=(1 << 60,))}, 8, "ends before weight 'a' does"),
    "list": ("[1, 2]", 8, "header of .* cannot be read"),
    "no JSON": ("{'a': 1}", 8, "header of .* cannot be read"),
    "deep": ("[" * 5000, 8, "header of .* cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_headers_are_named(tmp_path, case):
    header, size, message = BAD[case]
    path = write(tmp_path / "x.safetensors", header, b"\0" * size)
    with pytest.raises(RadioCheckpointError, match=message) as error:
        TensorFiles([path])
    assert "x.safetensors" in str(error.value)


def test_name_that_comes_twice(tmp_path):
    one = json.dumps(entry(0, 8))
    twice = f'{{"a": {one}, "a": {one}}}'
    with pytest.raises(RadioCheckpointError, match="'a' is there twice"):
        TensorFiles([write(tmp_path / "x.safetensors", twice, b"\0" * 8)])


def test_header_longer_than_the_file_or_the_format_allows(tmp_path):
    path = tmp_path / "x.safetensors"
    for length in (1 << 63, MAX_HEADER + 1, 9):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(RadioCheckpointError, match="not a whole safetensors file"):
            TensorFiles([path])
    with pytest.raises(RadioCheckpointError, match="does not exist"):
        TensorFiles([tmp_path / "none.safetensors"])
    with pytest.raises(RadioCheckpointError, match="not a file"):
        TensorFiles([tmp_path])


def test_cut_at_every_length(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RadioCheckpointError, match="x.safetensors"):
            TensorFiles([path])


def test_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "x.safetensors"
    make(path)
    files = TensorFiles([path])
    path.write_bytes(path.read_bytes()[:-8])
    last = max(files.keys(), key=lambda name: files._entries[name].offset)
    with pytest.raises(RadioCheckpointError, match=f"ends inside of weight '{last}'"):
        files.read(last)


def test_exchanged_bytes_raise_this_error_and_no_other(tmp_path):
    path, generator, refused = tmp_path / "x.safetensors", random.Random(0), 0
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, path)
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            files = TensorFiles([path])
            [files.read(name) for name in files]
        except RadioCheckpointError:
            refused += 1
    assert refused > 100
