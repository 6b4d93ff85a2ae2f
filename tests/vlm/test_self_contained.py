"""The import reader behind self-contained checkpoint folders: what is followed, what is rewritten, what is refused."""

import textwrap

import pytest

from vlm import self_contained
from vlm.self_contained import NotExportableError, collect_code, flatten_imports, write_auto_maps


def _flat(source: str) -> tuple[str, list[str]]:
    return flatten_imports(textwrap.dedent(source), "x.py")


def test_only_import_lines_change():
    source = '''
    """Doc: from vlm.geometry import plan_image stays as it is written."""
    import torch
    from vlm.geometry import plan_image
    from projectors.registry import (
        build_projector,
        num_tokens,
    )
    TEXT = "from vlm.geometry import plan_image"

    def late():
        from encoders.dense import encode  # inside a function
        return encode
    '''
    text, needed = _flat(source)
    assert needed == ["vlm.geometry", "projectors.registry", "encoders.dense"]
    assert "from .geometry import plan_image\n" in text and "from .registry import (\n" in text
    assert "    from .dense import encode  # inside a function" in text
    assert text.count("from vlm.geometry import plan_image") == 2, "the docstring and the string stay"
    assert len(text.splitlines()) == len(textwrap.dedent(source).splitlines())


def test_imports_in_try_are_left_alone():
    text, needed = _flat("""
    try:
        from vlm.media import load_image
    except ImportError:
        load_image = None
    """)
    assert needed == [] and "from vlm.media import load_image" in text


@pytest.mark.parametrize(
    "line",
    [
        "import vlm.geometry",
        "import vlm.geometry as g",
        "from vlm import geometry",
        "from . import geometry",
        "from ..a import b",
        "from .a.b import c",
        "from   vlm.geometry import plan",
    ],
)
def test_forms_that_transformers_would_drop_are_refused(line):
    with pytest.raises(NotExportableError, match=r"x\.py:1"):
        flatten_imports(line, "x.py")


def test_flattening_twice_changes_nothing():
    once, _ = _flat("from vlm.geometry import plan_image\n")
    assert flatten_imports(once, "x.py") == (once, [".geometry"])


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A repository in miniature: `vlm/a.py` needs `encoders/b.py`, which needs `encoders/c.py`."""
    for folder in ("vlm", "encoders"):
        (tmp_path / folder).mkdir()
    (tmp_path / "vlm/a.py").write_text("from encoders.b import B\n")
    (tmp_path / "encoders/b.py").write_text("from encoders.c import C\nB = C\n")
    (tmp_path / "encoders/c.py").write_text("C = 1\n")
    monkeypatch.setattr(self_contained, "__file__", str(tmp_path / "vlm/self_contained.py"))
    return tmp_path


def test_closure_is_transitive(packages):
    files = collect_code(packages / "vlm/a.py")
    assert files == {"a.py": "from .b import B\n", "b.py": "from .c import C\nB = C\n", "c.py": "C = 1\n"}


def test_a_generated_file_takes_the_place_and_the_imports(packages):
    files = collect_code(packages / "vlm/a.py", {"b.py": "B = 2\n"})
    assert files == {"a.py": "from .b import B\n", "b.py": "B = 2\n"}


def test_two_files_of_one_name_are_refused(packages):
    (packages / "encoders/a.py").write_text("")
    (packages / "encoders/b.py").write_text("from encoders.a import A\n")
    with pytest.raises(NotExportableError, match="would both be written as a.py"):
        collect_code(packages / "vlm/a.py")


def test_a_missing_file_is_named(packages):
    (packages / "encoders/c.py").unlink()
    with pytest.raises(NotExportableError, match=r"b\.py needs `encoders\.c`"):
        collect_code(packages / "vlm/a.py")


def test_auto_map_names_only_files_that_are_there(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "radio_vlm"}')
    (tmp_path / "processor_config.json").write_text('{"image_processor": {}}')
    (tmp_path / "modeling_radio_vlm.py").write_text("")
    write_auto_maps(tmp_path)
    import json

    assert set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == {
        "AutoModel",
        "AutoModelForImageTextToText",
    }
    assert json.loads((tmp_path / "processor_config.json").read_text())["image_processor"]["auto_map"] == {}


class Base:
    """What transformers' classes do, as far as the mixin cares."""

    def save_pretrained(self, save_directory, is_main_process=True, **kwargs):
        assert "repo_id" not in kwargs and not kwargs.get("push_to_hub"), "the hub's words are not for this method"
        if is_main_process:
            (save_directory / "config.json").write_text("{}")


@pytest.fixture
def saver(packages, monkeypatch):
    """An object of a class that lives in `vlm/a.py` of the miniature repository."""
    import sys
    from types import ModuleType

    module = ModuleType("vlm_a_in_miniature")
    module.__file__ = str(packages / "vlm/a.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return type("A", (self_contained.SelfContainedMixin, Base), {"__module__": module.__name__})()


def test_saving_writes_the_code_on_the_main_process_only(saver, tmp_path):
    for folder, main in (("main", True), ("other", False)):
        (tmp_path / folder).mkdir()
        saver.save_pretrained(tmp_path / folder, is_main_process=main)
    assert {path.name for path in (tmp_path / "main").iterdir()} == {"config.json", "a.py", "b.py", "c.py"}
    assert not list((tmp_path / "other").iterdir())


def test_saving_twice_leaves_unchanged_files_alone(saver, tmp_path):
    saver.save_pretrained(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.py")}
    saver.save_pretrained(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.py")} == before


def test_the_upload_comes_after_the_code(saver, tmp_path, monkeypatch):
    there = []
    monkeypatch.setattr(
        Base,
        "push_to_hub",
        raising=False,
        value=lambda self, repo_id, **kw: there.append((repo_id, kw, (tmp_path / "a.py").is_file())),
    )
    saver.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/model", commit_message="first", token="t")
    assert there == [("me/model", {"commit_message": "first", "token": "t"}, True)]
