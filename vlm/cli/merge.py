"""`radio-vlm merge`: an adapter folder and its base become one whole model, checked by its answers.

Merged in float32; the logits of real inputs, text alone and with pictures, are compared before, after, and once more
with what was written. A difference above the bound fails the command and leaves nothing behind.
"""

import argparse
import shutil
from pathlib import Path

from vlm.errors import RadioVLMError

HELP = "put an adapter folder into its base and check that the logits stay"
DESCRIPTION = (
    "Adds the low-rank matrices of an adapter folder to the weights of its base, in float32, and writes a whole model\n"
    "with its processor. Compares logits before and after on text and pictures; a difference above --bound (relative\n"
    "to the largest logit) fails and nothing is left in OUT. What rounding to --dtype costs is said apart from it.\n"
    "Adapters trained on a quantized base (QLoRA) are merged into the unquantized one. Needs memory for the model in\n"
    "float32."
)
EPILOG = """examples:
  radio-vlm merge runs/lora/stage2 runs/lora/merged
  radio-vlm merge runs/lora/stage2 merged --image receipt.png page.png --dtype bfloat16
  radio-vlm merge adapter merged --base /models/moved-here"""
BOUND = 1e-4
DTYPES = ("base", "float32", "bfloat16", "float16")
TEXT = "What is written in the first line? Answer in one word."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="adapter folder or hub id")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must not exist or be empty")
    parser.add_argument("--base", metavar="DIR|ID", help="where its base is now (default: where the adapter says)")
    parser.add_argument("--dtype", choices=DTYPES, default="base", help="of the weights written (default: the base's)")
    parser.add_argument(
        "--image", nargs="+", action="extend", default=[], metavar="FILE",
        help="compare on these pictures (default: one that is drawn)",
    )  # fmt: skip
    parser.add_argument(
        "--bound", type=float, default=BOUND, metavar="X",
        help="largest difference of a logit, relative to the largest logit (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def run(args: argparse.Namespace) -> int:
    import torch

    from vlm.adapted_model import merge
    from vlm.cli.loading import load_model, load_processor

    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise RadioVLMError(f"OUT: {args.out} is there already; give a folder that does not exist or is empty")
    processor = load_processor(args.adapter)
    batches = check_inputs(processor, args.image)
    model, stored = load_base(args.adapter, args.base, args.device)
    dtype = stored if args.dtype == "base" else getattr(torch, args.dtype)
    plain = logits(model, batches)
    model.load_adapter(args.adapter)
    adapted = logits(model, batches)
    report("the adapter itself", plain, adapted)
    merge(model)
    report("merging", adapted, logits(model, batches), args.bound)

    partial = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        cast(model, dtype)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        del model
        written = logits(load_model(str(partial), args.device, torch.float32), batches)
        exact = dtype == torch.float32
        title = "writing" if exact else f"rounding to {str(dtype).removeprefix('torch.')}"
        report(title, adapted, written, args.bound if exact else None)
        if args.out.is_dir():
            args.out.rmdir()
        partial.rename(args.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{args.out}: a whole model, opens with AutoModelForImageTextToText.from_pretrained")
    return 0


def load_base(adapter: str, base: str | None, device: str):
    """`(the base in float32, the dtype it is stored in)`."""
    import torch

    from vlm.adapter_folder import is_adapter
    from vlm.cli.loading import load_config, load_model, whole_model

    if not is_adapter(adapter):
        raise RadioVLMError(f"{adapter} is no adapter folder: one has adapter_config.json and no config.json")
    name = base or whole_model(adapter)
    if base and is_adapter(base):
        raise RadioVLMError(f"--base: {base} is an adapter itself; give the model below it")
    return load_model(name, device, torch.float32), load_config(name).dtype or torch.float32


def check_inputs(processor, images: list[str]) -> list[tuple[str, dict]]:
    """`(what it is, model inputs)`: a question alone, and one about each picture."""
    pictures = [(Path(path).name, path) for path in images] or [("a drawn picture", drawn_picture())]
    asked = [("text", [])] + [(f"text and {name}", [{"type": "image", "image": image}]) for name, image in pictures]
    batches = []
    for title, content in asked:
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": TEXT}]}]
        batch = processor.collate([processor.encode(messages, add_generation_prompt=True)])
        batches.append((title, {key: value for key, value in batch.items() if key not in ("labels", "sample_ids")}))
    return batches


def drawn_picture():
    """A page with a few lines, boxes and colours, the same every time."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (448, 320), "white")
    draw = ImageDraw.Draw(picture)
    for row in range(6):
        draw.text((24, 20 + 48 * row), f"line {row + 1}: {137 * (row + 3)}", fill=(20 * row, 0, 200 - 30 * row))
        draw.rectangle((260, 16 + 48 * row, 280 + 24 * row, 44 + 48 * row), outline="black", fill=(255, 40 * row, 60))
    return picture


def logits(model, batches: list[tuple[str, dict]]) -> list[tuple[str, object]]:
    """`(what it is, logits (L, V) in float32 on the CPU)` of every input."""
    import torch

    found = []
    with torch.inference_mode():
        for title, batch in batches:
            inputs = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            found.append((title, model(**inputs).logits[0].float().cpu()))
    return found


def report(title: str, before: list, after: list, bound: float | None = None) -> None:
    """Print the largest difference of each input. Raises RadioVLMError above `bound` (None: only say it)."""
    for (name, old), (_, new) in zip(before, after, strict=True):
        difference, scale = (old - new).abs().max().item(), old.abs().max().item()
        relative = difference / max(scale, 1e-30)
        line = f"{title}: logits of {name} differ by at most {difference:.2e}, {relative:.1e} of the largest"
        print(line + (f" (bound {bound:g})" if bound is not None else ""))
        if bound is not None and not relative <= bound:
            raise RadioVLMError(
                f"{title} changes the logits of {name} by {relative:.1e} of the largest, more than the bound "
                f"{bound:g}: nothing was written"
            )


def cast(model, dtype) -> None:
    """The dtype of a checkpoint, with float32 where the model's class keeps it."""
    keep = tuple(model._keep_in_fp32_modules_strict or ())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not any(part in name for part in keep):
            tensor.data = tensor.data.to(dtype)
    model.config.dtype = dtype
