"""The shape of the house: who may import whom, how long a file may be, what importing the package may pull in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("vlm", "encoders", "projectors", "llm", "training", "eval")
# folder -> the other top-level folders it may import; vlm/cli may import all of them inside functions
ALLOWED = {
    "encoders": set(),
    "projectors": set(),
    "llm": set(),
    "vlm": {"encoders", "projectors"},
    "training": {"vlm", "encoders", "projectors", "llm"},
    "eval": {"vlm", "encoders", "projectors"},
}
# What the model files must never touch, so that an exported checkpoint stays light.
MODEL_FILES = ("modeling_radio_vlm", "configuration_radio_vlm", "processing_radio_vlm")
FORBIDDEN_TO_MODEL = ("llm", "vlm.cli", "vlm.experts", "vlm.media")  # these modules and what is below them
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names of the modules a file imports (absolute imports; relative ones are refused by a test below)."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_import_direction(path: Path):
    folder = path.relative_to(ROOT).parts[0]
    is_cli = module_name(path).startswith("vlm.cli")
    names = imports(path, top_level_only=is_cli)
    foreign = {name.split(".")[0] for name in names} & set(FOLDERS) - {folder}
    assert foreign <= ALLOWED[folder], f"{module_name(path)} imports {sorted(foreign - ALLOWED[folder])}"
    if not is_cli and module_name(path) != "vlm.__main__":
        assert not any(name.startswith("vlm.cli") for name in imports(path)), "nothing imports vlm.cli"


def test_direction_check_can_fail(tmp_path):
    bad = tmp_path / "x.py"
    bad.write_text("def f():\n    from training.run import run_stage\n")
    assert "training.run" in imports(bad)
    assert imports(bad, top_level_only=True) == set()


@pytest.mark.parametrize("name", MODEL_FILES)
def test_model_files_stay_light(name: str):
    """Followed through the package's own imports: none of them reaches llm, cli, experts or media at import time."""
    seen, queue = set(), [f"vlm.{name}"]
    while queue:
        module = queue.pop()
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        if module in seen or not path.exists():
            continue
        seen.add(module)
        found = imports(path, top_level_only=True)
        for other in found:
            forbidden = [name for name in FORBIDDEN_TO_MODEL if f"{other}.".startswith(f"{name}.")]
            assert not forbidden, f"{module} imports {other}"
        queue.extend(other for other in found if other.split(".")[0] in FOLDERS)
    assert len(seen) > 1


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_file_house_rules(path: Path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 400, "split it: one concept, one file"
    assert ast.get_docstring(tree), "the first lines of a file say what it is and why it exists"
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 0]
    assert not relative, "imports one way: absolute"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_print_in_library_code(path: Path):
    if module_name(path).startswith("vlm.cli"):
        return  # the command line prints; that is its job
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    prints = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
    assert not prints, f"print at lines {prints}: use a logger"


def test_importing_vlm_needs_torch_transformers_and_pillow_only():
    code = (
        "import sys\n"
        "refused = 'deepspeed peft datasets av pydicom matplotlib tensorboard pypdfium2 scipy'.split()\n"
        "sys.modules.update(dict.fromkeys(refused))\n"
        "import vlm\n"
        "print(vlm.RadioVLMConfig.model_type, vlm.RadioVLMForConditionalGeneration, vlm.RadioVLMProcessor)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "radio_vlm" in done.stdout
