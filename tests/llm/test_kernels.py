"""Optional kernels: what is found, what is broken, and that neither ever breaks us. The packages are fakes on disk."""

import importlib
import importlib.metadata
import logging
import sys

import pytest
import torch

from llm.kernels import _installed_version, clear_kernels, find_kernel, find_kernels, kernel

PACKAGES = ("mamba_ssm", "causal_conv1d", "flash_attn", "liger_kernel")
MISSING_SO = "import selective_scan_cuda\n"
SSD = "import mamba_ssm.ops.helper\ndef mamba_chunk_scan_combined(x):\n    return x * mamba_ssm.ops.helper.SEVEN\n"


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    clear_kernels()


def version_below(folder):
    def version(package: str) -> str:
        for distribution in importlib.metadata.distributions(name=package, path=[str(folder)]):
            return distribution.version
        raise importlib.metadata.PackageNotFoundError(package)

    return version


@pytest.fixture
def fakes(tmp_path, monkeypatch, caplog):
    """A folder in front of sys.path: `fakes({path: source})` writes files there."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in PACKAGES}
    forget()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("importlib.metadata.version", version_below(tmp_path))  # not of packages installed here
    caplog.set_level(logging.WARNING, logger="llm.kernels")

    def write(files: dict[str, str]):
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        importlib.invalidate_caches()

    yield write
    forget()
    sys.modules.update(kept)


def mamba(init: str, scan: str = SSD) -> dict[str, str]:
    """Files of a mamba_ssm with this `__init__` and this Triton module."""
    return {
        "mamba_ssm/__init__.py": init,
        "mamba_ssm/ops/__init__.py": "",
        "mamba_ssm/ops/helper.py": "SEVEN = 7\n",
        "mamba_ssm/ops/triton/__init__.py": "",
        "mamba_ssm/ops/triton/ssd_combined.py": scan,
        "mamba_ssm/ops/selective_scan_interface.py": "import selective_scan_cuda\nselective_scan_fn = max\n",
        "mamba_ssm-2.3.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: mamba-ssm\nVersion: 2.3.2\n",
    }


def test_missing_packages_are_not_errors(fakes, caplog, monkeypatch):
    for name in PACKAGES:  # also where they are installed
        monkeypatch.setitem(sys.modules, name, None)
    for name, record in find_kernels().items():
        assert (record.version, record.function, record.error) == (None, None, None)
        assert record.name == name and record.state == "not installed"
        assert record.package in record.install
        assert kernel(name, "cuda") is None
    assert not caplog.records


def test_a_good_package_is_used_on_cuda_only(fakes, caplog):
    fakes(mamba("") | {"causal_conv1d/__init__.py": "def causal_conv1d_fn(x):\n    return x + 1\n"})
    record = find_kernel("mamba_chunk_scan")
    assert record.version == "2.3.2" and record.error is None and record.note == ""
    assert kernel("mamba_chunk_scan", "cuda:1")(2) == 14
    assert kernel("mamba_chunk_scan", torch.device("cpu")) is None
    assert find_kernel("causal_conv1d").version == "unknown"  # no metadata
    assert kernel("causal_conv1d", torch.device("cuda"))(2) == 3
    assert find_kernel("causal_conv1d") is find_kernel("causal_conv1d")
    assert not caplog.records


def test_nothing_is_imported_for_the_cpu(fakes):
    fakes({"causal_conv1d/__init__.py": "raise SystemExit('imported')\n"})
    assert kernel("causal_conv1d", "cpu") is None
    assert "causal_conv1d" not in sys.modules


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('x.so: undefined symbol: _ZN3c10')", "ImportError: x.so: undefined symbol: _ZN3c10"),
        ("import causal_conv1d_cuda", "No module named 'causal_conv1d_cuda'"),
        ("raise OSError('libcudart.so.11:\\n  cannot open')", "OSError: libcudart.so.11: cannot open"),
        ("other = 1", "AttributeError"),
    ],
)
def test_a_broken_package_is_named_in_one_warning(fakes, caplog, source, words):
    fakes({"causal_conv1d/__init__.py": source})
    for _ in range(3):
        assert kernel("causal_conv1d", "cuda") is None
        record = find_kernel("causal_conv1d")
    assert words in record.error and record.function is None and record.version == "unknown"
    assert record.state.startswith("unknown, installed but broken: ") and words in record.state
    (warning,) = caplog.records
    assert "causal-conv1d" in warning.getMessage() and words in warning.getMessage()
    clear_kernels()
    find_kernel("causal_conv1d")
    assert len(caplog.records) == 2  # forgetting forgets the warning too


def test_metadata_without_files_is_broken_not_missing(fakes, caplog, monkeypatch):
    fakes({"causal_conv1d-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: causal-conv1d\nVersion: 1.0\n"})
    monkeypatch.setitem(sys.modules, "causal_conv1d", None)
    record = find_kernel("causal_conv1d")
    assert record.version == "1.0" and record.error.startswith("ModuleNotFoundError")
    assert len(caplog.records) == 1


def test_a_bare_folder_is_not_a_package(fakes):
    """FlashAttention 4 puts its files below flash_attn/ without being flash-attn."""
    fakes({"bare_folder/cute/__init__.py": "", "package/__init__.py": ""})
    assert _installed_version("package", "bare_folder") is None
    assert _installed_version("package", "package") == "unknown"


def test_the_triton_scan_is_used_although_mamba_ssm_cannot_be_imported(fakes, caplog):
    fakes(mamba(MISSING_SO))
    before = dict(sys.modules)
    record = find_kernel("mamba_chunk_scan")
    assert record.error is None and kernel("mamba_chunk_scan", "cuda")(3) == 21
    assert "No module named 'selective_scan_cuda'" in record.note
    assert not caplog.records
    # nobody else sees half a package: it fails as it would without us
    assert not [name for name in set(sys.modules) - set(before) if name.startswith("mamba_ssm")]
    with pytest.raises(ModuleNotFoundError, match="selective_scan_cuda"):
        importlib.import_module("mamba_ssm")
    # the Mamba-1 scan does need the extension: one warning for it
    assert find_kernel("selective_scan").error == "ModuleNotFoundError: No module named 'selective_scan_cuda'"
    find_kernels()
    assert [record.levelname for record in caplog.records if "mamba-ssm" in record.getMessage()] == ["WARNING"]


def test_modules_that_were_loaded_before_are_put_back(fakes):
    """An `__init__` that fails at its end leaves the modules it had imported; they stay the same objects."""
    fakes(mamba("import mamba_ssm.ops.helper\n" + MISSING_SO))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm")
    helper = sys.modules["mamba_ssm.ops.helper"]
    assert kernel("mamba_chunk_scan", "cuda")(1) == 7
    assert sys.modules["mamba_ssm.ops.helper"] is helper and "mamba_ssm" not in sys.modules
    assert "mamba_ssm.ops.triton.ssd_combined" not in sys.modules


def test_both_broken_names_both_errors_in_one_warning(fakes, caplog):
    fakes(mamba(MISSING_SO, "raise RuntimeError('no triton')\n"))
    records = find_kernels()
    error = records["mamba_chunk_scan"].error
    assert "selective_scan_cuda" in error and "RuntimeError: no triton" in error
    assert records["selective_scan"].error in error
    assert kernel("mamba_chunk_scan", "cuda") is None
    assert len([record for record in caplog.records if "mamba-ssm" in record.getMessage()]) == 1
    assert not [name for name in sys.modules if name == "mamba_ssm"]


def test_compiled_code_can_ask(fakes, recwarn):
    """No graph break where the answer is no; the right answer where it is yes, also for a module nobody can import."""
    fakes(mamba(MISSING_SO) | {"causal_conv1d/__init__.py": "raise ImportError('broken')"})

    def run(x, name, device):
        fused = kernel(name, device)
        return x + 1 if fused is None else fused(x)

    x = torch.ones(2)
    whole = torch.compile(run, backend="eager", fullgraph=True)
    assert torch.equal(whole(x, "mamba_chunk_scan", "cpu"), x + 1)
    assert torch.equal(whole(x, "causal_conv1d", "cuda"), x + 1)
    assert torch.equal(torch.compile(run, backend="eager")(x, "mamba_chunk_scan", "cuda"), x * 7)
    assert not [str(warning.message) for warning in recwarn if "cache" in str(warning.message)], "the search was traced"


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'mamba'.*mamba_chunk_scan"):
        kernel("mamba", "cpu")


def test_opening_a_model_names_a_broken_kernel_once_and_goes_on(fakes, caplog):
    from llm import families, load_language_model

    fakes(mamba("raise ImportError('undefined symbol: _ZN3c10')\n", scan="import selective_scan_cuda\n"))
    for _ in range(2):
        model = load_language_model(families()["mamba2"].tiny())
        assert torch.isfinite(model(torch.arange(8)[None]).logits).all()
    told = [record.getMessage() for record in caplog.records if record.name == "llm.kernels"]
    assert len(told) == 1 and "mamba-ssm" in told[0] and "_ZN3c10" in told[0]
