"""`radio-vlm new`: an untrained VLM from a RADIO encoder, a projector and a language model.

Encoder and language model keep their weights; the projector and the rows of the new tokens start fresh. The result is
an ordinary checkpoint folder: train it, or open it with AutoModel.
"""

import argparse
from pathlib import Path

from vlm.cli.tables import count, parameter_rows, text_table

HELP = "build an untrained model from an encoder, a projector and a language model"
DESCRIPTION = (
    "Puts a RADIO vision encoder and a causal language model together with a new projector and writes a checkpoint.\n"
    "--vision and --llm each take a preset (see below), a Hugging Face id, or a local folder. Weights are downloaded\n"
    "where needed and kept as they are; `tiny` and --random start from random weights and download nothing."
)
EPILOG = """examples:
  radio-vlm new --preset tiny --out runs/tiny
  radio-vlm new --vision nvidia/C-RADIOv4-H --llm nvidia/NVIDIA-Nemotron-Nano-9B-v2 --out runs/nano-9b
  radio-vlm new --vision C-RADIOv4-SO400M --llm ./my-llm --projector norm=layernorm activation=gelu --out runs/llava
  radio-vlm new --vision C-RADIOv4-H --llm Nemotron-H-8B --meta       only print the plan; nothing is downloaded

`radio-vlm new --list` prints the presets with their hub ids."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="NAME", help="preset for every part that is not given (e.g. tiny)")
    parser.add_argument("--vision", metavar="PRESET|ID|DIR", help="RADIO encoder: preset, hub id or folder")
    parser.add_argument("--llm", metavar="PRESET|ID|DIR", help="causal language model: preset, hub id or folder")
    parser.add_argument("--tokenizer", metavar="ID|DIR", help="tokenizer, if not the language model's own")
    parser.add_argument(
        "--projector", nargs="+", metavar="KEY=VALUE", default=[],
        help="e.g. type=pixel_shuffle downsample=2 norm=rmsnorm activation=relu2 hidden_size=20480 (default: as in "
        "Nemotron Nano V2 VL, sized for the parts)",
    )  # fmt: skip
    parser.add_argument(
        "--geometry", nargs="+", metavar="KEY=VALUE", default=[],
        help="how images are resized, e.g. mode=dynamic max_num_patches=3072, or mode=fixed size=512,512",
    )  # fmt: skip
    parser.add_argument(
        "--video", nargs="+", metavar="KEY=VALUE", default=[], help="e.g. max_frames=8 fps=2.0 (default: these)"
    )
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto, as stored)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all new weights (default: 0)")
    parser.add_argument("--random", action="store_true", help="random weights everywhere; read configs, no weights")
    parser.add_argument("--meta", action="store_true", help="print the plan and stop; allocates and downloads nothing")
    parser.add_argument("--list", action="store_true", help="list the presets and stop")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write the checkpoint to")


def run(args: argparse.Namespace) -> int:
    if args.list:
        print(preset_list())
        return 0
    from vlm.cli.parts import load_parts, parse_pairs
    from vlm.errors import RadioVLMError

    vision_name, llm_name = args.vision or args.preset, args.llm or args.preset
    if not vision_name or not llm_name:
        raise RadioVLMError("name both parts: --vision and --llm (or --preset tiny); --list shows what is known")
    if not args.meta and args.out is None:
        raise RadioVLMError("--out is missing: the folder to write to (or --meta to only print the plan)")
    if args.out is not None and args.out.is_dir() and any(args.out.iterdir()) and not args.meta:
        if not (args.out / "config.json").is_file():
            raise RadioVLMError(f"{args.out} is not empty and holds no checkpoint; give another --out")
    import torch

    from vlm.build import build_vlm

    torch.manual_seed(args.seed)
    parts = load_parts(vision_name, llm_name, args.tokenizer, args.dtype, weights=not (args.meta or args.random))
    options = {
        "projector": parse_pairs(args.projector, "--projector") or None,
        "geometry": parse_pairs(args.geometry, "--geometry") or None,
        "video": parse_pairs(args.video, "--video") or None,
    }
    if args.meta:
        with torch.device("meta"):
            model, processor = build_vlm(parts.vision, parts.text, parts.tokenizer, **options)
    else:
        model, processor = build_vlm(parts.vision, parts.text, parts.tokenizer, **options)
    model.config.base_models = {"vision": parts.vision_origin, "text": parts.text_origin}
    print(plan(model, processor, parts))
    if args.meta:
        return 0
    if args.dtype != "auto":
        model.to(getattr(torch, args.dtype))
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    print(f"\nwritten to {args.out}\nnext: radio-vlm inspect --model {args.out}")
    return 0


def preset_list() -> str:
    """Both tables of presets, with hub ids."""
    from encoders.presets import VISION_PRESETS
    from llm.presets import LLM_PRESETS

    rows = [("--vision", name, preset.hub_id or "(random weights)") for name, preset in VISION_PRESETS.items()]
    rows += [("--llm", name, preset.hub_id or "(random weights)") for name, preset in LLM_PRESETS.items()]
    return text_table(("for", "preset", "hub id"), rows)


def plan(model, processor, parts) -> str:
    """What will be built: parts, parameters, tokens for a few image sizes."""
    from projectors.components import num_tokens
    from vlm.geometry import plan_image

    config = model.config
    origins = {"vision_model": parts.vision_origin, "language_model": parts.text_origin}
    rows = [(name, count(n), f"{n:,}", origins.get(name, "new")) for name, n in parameter_rows(model)]
    total = sum(n for _, n in parameter_rows(model))
    rows.append(("total", count(total), f"{total:,}", ""))
    lines = [text_table(("module", "size", "parameters", "weights"), rows, right=(1, 2)), ""]
    tokens = []
    for width, height in ((512, 512), (1024, 768), (1240, 1754)):
        grid = plan_image(height, width, config.geometry)
        tokens.append((f"{width}×{height}", f"{grid[0]}×{grid[1]}", num_tokens(config.projector_config, *grid)))
    lines.append(text_table(("image (w×h)", "grid (h×w)", "tokens"), tokens, right=(2,)))
    return "\n".join(lines)
