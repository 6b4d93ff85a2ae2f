"""`radio-vlm inspect --kernels`: what is installed, what each family computes with, the line that installs the rest."""

import re
from dataclasses import replace

import pytest

from llm.family import families
from llm.kernels import find_kernel, find_kernels
from vlm.cli.kernel_rows import install_line, install_text, kernel_sections
from vlm.cli.main import main

BROKEN = "ImportError: causal_conv1d_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"


@pytest.fixture
def kernels(monkeypatch):
    """mamba-ssm's Triton part works, causal-conv1d is broken, the rest is not installed, whatever this machine has."""
    found = {
        name: replace(record, version=None, function=None, error=None, note="")
        for name, record in find_kernels().items()
    }
    found["mamba_chunk_scan"] = replace(found["mamba_chunk_scan"], version="2.3.2", function=max, note="alone")
    found["causal_conv1d"] = replace(found["causal_conv1d"], version="1.7.0", error=BROKEN)
    monkeypatch.setattr("llm.kernels.find_kernels", lambda: found)
    monkeypatch.setattr("vlm.cli.kernel_rows.can_compile_cuda", lambda: False)
    return found


def row(shown: str, start: str) -> str:
    (line,) = [line for line in shown.splitlines() if line.startswith(start + " ")]
    return line


def test_states_of_kernels(kernels, capsys):
    assert main(["inspect", "--kernels"]) == 0
    shown = capsys.readouterr().out
    assert "2.3.2 " in row(shown, "mamba_chunk_scan") and "broken" not in row(shown, "mamba_chunk_scan")
    assert "1.7.0, broken" in row(shown, "causal_conv1d")
    assert "not installed" in row(shown, "flash_attention_2")
    assert BROKEN in " ".join(shown.split())
    assert all(len(line) <= 120 for line in shown.splitlines() if "pip install" not in line)


def test_what_families_compute_with(kernels):
    table = dict(kernel_sections())["Language models"]
    for name, family in families().items():
        _, cpu, cuda = re.split("  +", row(table, name))
        assert "mamba_chunk_scan" not in cpu, "the CPU never runs a kernel"
        assert ("mamba_chunk_scan" in cuda) == ("mamba_chunk_scan" in family.kernels)
        assert ("llm.causal_conv" in cuda) == ("causal_conv1d" in family.kernels), "broken: PyTorch"
        assert ("sdpa" in cuda) == ("flash_attention_2" in family.kernels) and "sdpa or" not in cuda
    kernels["flash_attention_2"] = replace(kernels["flash_attention_2"], version="2.8", function=max)
    assert "sdpa or flash_attention_2" in row(dict(kernel_sections())["Language models"], "llama")


def test_a_checkpoint_names_the_kernels_of_its_language_model(kernels, tmp_path, capsys):
    from tests.helpers.tiny_vlm import build_tiny

    model, processor = build_tiny()
    model.save_pretrained(tmp_path)
    assert main(["inspect", "--model", str(tmp_path), "--kernels"]) == 0
    shown = capsys.readouterr().out
    assert "Parameters" in shown
    own = shown.split(f"Language model of {tmp_path}")[1]
    assert row(own, "family").split()[1] == f"{model.config.text_config.model_type}:"
    assert row(own, "on the CPU").split(maxsplit=3)[3] == "llm.ssd_scan, llm.causal_conv, sdpa"
    assert row(own, "on CUDA").endswith("mamba_chunk_scan, llm.causal_conv, sdpa")


def test_install_lines(kernels):
    without = install_text(kernels, can_compile=False).splitlines()
    assert without[0] == "pip install liger-kernel"
    assert without[1].startswith("And selective_scan, causal_conv1d, flash_attention_2, where CUDA code can be")
    everything = install_text(kernels, can_compile=True).splitlines()[0]
    assert everything == (
        "pip install liger-kernel setuptools wheel ninja packaging einops && "
        "pip install --no-build-isolation --no-cache-dir mamba-ssm causal-conv1d flash-attn"
    )
    triton = install_line([replace(find_kernel("mamba_chunk_scan"), function=None)])
    assert "MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE pip install" in triton and "--no-deps mamba-ssm" in triton
    installed = {name: replace(record, function=max) for name, record in kernels.items()}
    assert install_text(installed, can_compile=False) == "Nothing is missing."


@pytest.mark.parametrize("words", [[], ["--kernels", "--image", "page.png"], ["--recipe", "x.yaml"]])
def test_a_model_is_asked_for(words, capsys):
    assert main(["inspect", *words]) == 2
    assert "--model DIR|ID is needed" in capsys.readouterr().err
