"""Checkpoint folders that carry their own code.

`SelfContainedMixin` makes `save_pretrained` leave a folder that opens with `trust_remote_code=True` where radio-vlm is
not installed. The source is spread over packages (vlm, encoders, projectors); transformers' loader only follows
`from .x import y` lines inside one flat folder. So on saving, the files a class needs are found by reading their
imports, copied flat under their own names, and only their import lines are rewritten. This file is copied too: in a
loaded checkpoint the imports are relative already, and saving again goes the same way.
"""

import ast
import json
import os
import sys
from pathlib import Path

PACKAGES = ("vlm", "encoders", "projectors")

# JSON file of a checkpoint -> what transformers' Auto classes look up in it ("module.Class").
CONFIG_AUTO_MAP = {
    "AutoConfig": "configuration_radio_vlm.RadioVLMConfig",
    "AutoModel": "modeling_radio_vlm.RadioVLMForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_radio_vlm.RadioVLMForConditionalGeneration",
    "AutoProcessor": "processing_radio_vlm.RadioVLMProcessor",
    "AutoImageProcessor": "image_processing_radio_vlm.RadioVLMImageProcessor",
}
# The same for an encoder by itself.
ENCODER_AUTO_MAP = {"AutoConfig": "radio_config.RadioEncoderConfig", "AutoModel": "radio_vision.RadioVisionModel"}
PROCESSOR_AUTO_MAP = {key: CONFIG_AUTO_MAP[key] for key in ("AutoProcessor", "AutoImageProcessor")}


class NotExportableError(ValueError):
    """A source file imports in a form that a flat checkpoint folder cannot express."""


def _imports(tree: ast.AST):
    """Import nodes outside `try` blocks: what stands in `try` is optional, and transformers' check skips it too."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not isinstance(child, ast.Try):
            yield from _imports(child)


def flatten_imports(source: str, name: str) -> tuple[str, list[str]]:
    """Rewrite `from vlm.a.b import y` to `from .b import y`; nothing else, and nothing inside strings.

    Returns the new text and the modules it needs, dotted ("vlm.a.b") where they were absolute and ".b" where they were
    relative already. Raises `NotExportableError` naming file and line for a form that transformers would drop.
    """
    lines = source.splitlines(keepends=True)
    needed: list[str] = []
    for node in _imports(ast.parse(source)):
        where = f"{name}:{node.lineno}"
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in PACKAGES for alias in node.names):
                raise NotExportableError(f"{where}: write `from package.module import name`, not `import package...`")
            continue
        module = node.module or ""
        if node.level:
            if node.level > 1 or not module or "." in module:
                raise NotExportableError(f"{where}: only `from .module import name` survives in a flat folder")
            needed.append(f".{module}")
        elif module.split(".")[0] in PACKAGES:
            if "." not in module:
                raise NotExportableError(f"{where}: import from the module that defines the name, not from `{module}`")
            line, old = lines[node.lineno - 1], f"from {module} import"
            if not line[node.col_offset :].startswith(old):
                raise NotExportableError(f"{where}: put `{old} ...` on a line of its own")
            new = f"from .{module.rsplit('.', 1)[-1]} import"
            lines[node.lineno - 1] = line[: node.col_offset] + new + line[node.col_offset + len(old) :]
            needed.append(module)
    return "".join(lines), needed


def collect_code(entry: Path, generated: dict[str, str] | None = None) -> dict[str, str]:
    """`{file name: text}` of every file that `entry` needs, flat and rewritten, itself included.

    `generated` replaces files by name (the static stand-in of a registry); their imports are followed like any others.
    """
    generated = generated or {}
    files: dict[str, str] = {}
    origin: dict[str, Path] = {}
    queue = [Path(entry).resolve()]
    while queue:
        path = queue.pop()
        if origin.setdefault(path.name, path) != path:
            raise NotExportableError(f"{path} and {origin[path.name]} would both be written as {path.name}")
        if path.name in files:
            continue
        source = generated[path.name] if path.name in generated else path.read_text(encoding="utf-8")
        files[path.name], needed = flatten_imports(source, path.name)
        for module in needed:
            # absolute names start at the folder that holds the packages; this file is vlm/self_contained.py there
            base, dotted = (path.parent, module[1:]) if module[0] == "." else (Path(__file__).parents[1], module)
            target = (base / dotted.replace(".", "/")).with_suffix(".py").resolve()
            if not target.is_file():
                raise NotExportableError(f"{path.name} needs `{module}`, and there is no file {target}")
            queue.append(target)
    return files


def write_code(folder: str | os.PathLike, entry: Path, generated: dict[str, str] | None = None) -> list[Path]:
    """Write `collect_code(entry)` into `folder` and bring every `auto_map` there up to date. Returns the paths."""
    written = []
    for name, text in sorted(collect_code(entry, generated).items()):
        target = Path(folder) / name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            part = target.with_name(f".{name}.{os.getpid()}")  # several ranks may save at once: replace whole files
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        written.append(target)
    write_auto_maps(folder)
    return written


def write_auto_maps(folder: str | os.PathLike) -> None:
    """Point the Auto classes at the code files that are really in `folder`, in each JSON where they look."""
    folder = Path(folder)
    for name, auto_map in (
        ("config.json", CONFIG_AUTO_MAP),
        ("processor_config.json", PROCESSOR_AUTO_MAP),
        ("preprocessor_config.json", PROCESSOR_AUTO_MAP),
    ):
        path = folder / name
        if not path.is_file():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("model_type") == "radio_encoder":
            auto_map = ENCODER_AUTO_MAP
        present = {auto: ref for auto, ref in auto_map.items() if (folder / f"{ref.split('.')[0]}.py").is_file()}
        # AutoImageProcessor reads the image processor's own part of processor_config.json
        for part in [data] + [data[key] for key in ("image_processor",) if isinstance(data.get(key), dict)]:
            part["auto_map"] = present
        path.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


class SelfContainedMixin:
    """First base of the model, the processor and the image processor: `save_pretrained` writes the code as well."""

    def remote_code_parts(self) -> dict[str, str]:
        """Files to generate instead of copying, `{file name: text}`; see `collect_code`."""
        return {}

    def save_pretrained(self, save_directory, *args, push_to_hub: bool = False, **kwargs):
        """As in transformers, and the folder is self-contained afterwards."""
        hub = {}
        if push_to_hub:
            hub = {key: kwargs.pop(key) for key in ("repo_id", "commit_message", "create_pr") if key in kwargs}
        result = super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write_code(save_directory, Path(sys.modules[type(self).__module__].__file__), self.remote_code_parts())
            if push_to_hub:  # transformers would upload before the code is there
                self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"), **hub)
        return result
