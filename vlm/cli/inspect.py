"""`radio-vlm inspect`: what a checkpoint is made of and what an input costs, without loading its weights."""

import argparse
import importlib.metadata
import platform
import textwrap
from pathlib import Path

from vlm.cli.encoder_rows import encoder_rows
from vlm.cli.kernel_rows import kernel_sections
from vlm.cli.tables import count, parameter_rows, text_table
from vlm.errors import RadioVLMError, SampleError

HELP = "parameters, trainable table, geometry, token counts, versions"
DESCRIPTION = (
    "Shows the parts of a checkpoint with their parameters; with --recipe what that recipe would train and at which\n"
    "learning rate; with --image/--video how they are resized and how many tokens they become. Weights are not\n"
    "loaded, so it is quick for a model of any size. With --kernels: which optional CUDA kernels are installed, what\n"
    "each family of language models computes with, and the line that installs what is missing."
)
EPILOG = """examples:
  radio-vlm inspect --model runs/demo/export
  radio-vlm inspect --model runs/demo/stage1 --recipe training/recipes/tiny/stage2.yaml
  radio-vlm inspect --model runs/demo/export --image receipt.jpg page.png --video clip.mp4
  radio-vlm inspect --kernels"""

# What decides which code runs: name on PyPI -> what it is for.
PACKAGES = {
    "torch": "",
    "transformers": "",
    "accelerate": "device_map, training",
    "deepspeed": "training",
    "peft": "LoRA",
    "mamba-ssm": "fast Mamba scan",
    "causal-conv1d": "fast Mamba convolution",
    "flash-attn": "attn_implementation=flash_attention_2",
    "liger-kernel": "loss on GPUs",
    "bitsandbytes": "4/8-bit loading",
    "av": "video files",
    "pydicom": "DICOM files",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR|ID", help="checkpoint folder or hub id; not needed with --kernels")
    many = {"nargs": "+", "action": "extend", "default": [], "type": Path, "metavar": "FILE"}
    parser.add_argument("--image", help="images or DICOM files: show their tokens", **many)
    parser.add_argument("--video", help="video files: show their tokens", **many)
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="training recipe: show what it would train")
    parser.add_argument("--kernels", action="store_true", help="show the kernels of this machine and who uses them")
    parser.add_argument("--depth", type=int, default=1, help="levels of modules in the parameter table (default: 1)")


def run(args: argparse.Namespace) -> int:
    if args.model is not None:
        sections = model_sections(args)
    elif args.kernels and not (args.recipe or args.image or args.video):
        sections = kernel_sections()
    else:
        raise RadioVLMError("--model DIR|ID is needed; only `inspect --kernels` alone goes without")
    print("\n\n".join(f"{title}\n{body}" for title, body in sections))
    return 0


def model_sections(args: argparse.Namespace) -> list[tuple[str, str]]:
    """(title, body) of what is shown of a checkpoint."""
    from vlm.cli.loading import load_empty_model, load_processor

    model = load_empty_model(args.model)
    config = model.config
    sections = [
        ("Parameters", parameter_table(model, args.depth)),
        ("Encoder", text_table(("what", "how"), encoder_rows(config))),
        ("Geometry", settings_table(config)),
        ("Versions", version_table()),
    ]
    processor = load_processor(args.model) if args.recipe or args.image or args.video else None
    if args.recipe:
        sections.insert(1, (f"Trained by {args.recipe}", trainable_table(model, processor.tokenizer, args.recipe)))
    if args.image or args.video:
        sections.insert(len(sections) - 1, ("Tokens", media_table(processor, args.image, args.video)))
    return sections + (kernel_sections(args.model, config.text_config) if args.kernels else [])


def parameter_table(model, depth: int) -> str:
    """Parameters by module; tied tensors count once."""
    rows = parameter_rows(model, depth)
    total = sum(n for _, n in rows)
    table = [(name, count(n), f"{n:,}", f"{n / total:.1%}") for name, n in rows]
    table.append(("total", count(total), f"{total:,}", "100.0%"))
    tied = "tied to the embeddings" if model.config.tie_word_embeddings else "untied"
    dtype = str(model.config.dtype).removeprefix("torch.")
    return (
        text_table(("module", "size", "parameters", "share"), table, right=(1, 2, 3))
        + f"\nstored as {dtype}; lm_head {tied}"
    )


def settings_table(config) -> str:
    """How inputs become tokens: the geometry, the projector, the video settings and the placeholder tokens."""
    ids = {role: getattr(config, f"{role}_token_id", None) for role in ("image", "video", "image_start", "image_end")}
    tokens = {config.special_tokens.get(role, role): number for role, number in ids.items() if number is not None}
    groups = {"image": config.geometry, "projector": config.projector_config, "video": config.video, "tokens": tokens}
    rows = []
    for name, values in groups.items():
        words = "  ".join(f"{key}={value}".replace(" ", "") for key, value in values.items())
        lines = textwrap.wrap(words, 90, break_long_words=False, break_on_hyphens=False)
        rows += [(name if i == 0 else "", line) for i, line in enumerate(lines)]
    rows.append(("format", f"version {config.format_version}"))
    return text_table(("what", "settings"), rows)


def media_table(processor, images: list[Path], videos: list[Path]) -> str:
    """One row a file: its size, the grid it is resized to, its tokens; below the table, what cannot be read."""
    rows, refused = [], []
    for kind, path in [("image", path) for path in images] + [("video", path) for path in videos]:
        try:
            rows.append(media_row(processor, kind, path))
        except SampleError as error:
            refused.append(f"cannot read {path.name}: {error.message}")
    head = ("file", "size (w×h)", "resized to", "grid", "tokens", "whole prompt")
    return "\n".join([text_table(head, rows, right=(4, 5)), *refused])


def media_row(processor, kind: str, path: Path) -> tuple:
    """The row of one file."""
    from vlm.cli.media_items import media_item
    from vlm.cli.token_inputs import visual_count
    from vlm.media import load_image

    item, size = media_item(path, kind), "video"
    if kind == "image":
        item["image"] = load_image(path)
        size = f"{item['image'].width}×{item['image'].height}"
    encoded = processor.encode([{"role": "user", "content": [item]}], return_labels=False)
    grids = encoded["image_grid_hw" if kind == "image" else "video_grid_thw"]
    *frames, h, w = grids[0].tolist()
    patch = processor.image_processor.geometry["patch_size"]
    tokens = visual_count(encoded["mm_token_type_ids"])
    grid = ("" if len(grids) == 1 else f"{len(grids)} of ") + "×".join(map(str, [*frames, h, w]))
    return path.name, size, f"{w * patch}×{h * patch}", grid, tokens, len(encoded["input_ids"])


def trainable_table(model, tokenizer, recipe: Path) -> str:
    """What the recipe trains, frozen parts included; made by the code that builds the optimizer in training."""
    from llm.prepare import prepare_language_model
    from training.freezing import apply_freezing, format_table, new_token_ids
    from training.freezing import trainable_table as table
    from training.optimizers import build_param_groups
    from training.plan.models import attach_planned_adapters
    from training.recipe import RecipeError
    from training.recipe.loading import load_recipe

    try:
        settings = load_recipe(recipe)
        prepare_language_model(model.language_model)  # as in training; some layers take adapters only then
        attach_planned_adapters(model, settings)
        only_rows_of = apply_freezing(model, settings.modules)
        groups = build_param_groups(model, settings, only_rows_of)
    except RecipeError as error:
        raise RadioVLMError(f"--recipe: {error}") from error
    for group in groups:
        if only_rows_of is not None and group["name"].startswith("new_embeddings"):
            group["rows_parameters"] = len(new_token_ids(model, tokenizer)) * only_rows_of.shape[1]
    return format_table(table(model, groups))


def version_table() -> str:
    """Python, the machine, and every package that decides which code runs."""
    import torch

    rows = [("python", platform.python_version(), ""), ("device", device_name(torch), "")]
    for name, purpose in PACKAGES.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        rows.append((name, version, purpose))
    return text_table(("package", "version", "for"), rows)


def device_name(torch) -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads"
