"""`radio-vlm new`: an untrained VLM from a RADIO encoder, a projector and a language model.

Encoder and language model keep their weights; the projector and the rows of the new tokens start fresh. The result is
an ordinary checkpoint folder: train it, or open it with AutoModel.
"""

import argparse
from pathlib import Path

from vlm.cli.encoder_rows import encoder_rows
from vlm.cli.tables import count, parameter_rows, text_table

HELP = "build an untrained model from an encoder, a projector and a language model"
DESCRIPTION = (
    "Puts a RADIO vision encoder and a causal language model together with a new projector and writes a checkpoint.\n"
    "--vision and --llm each take a preset (see below), a Hugging Face id, or a local folder; --vision also the name\n"
    "of a RADIO release or its .pth.tar file. Weights are downloaded where needed and kept as they are; `tiny` and\n"
    "--random start from random weights and download nothing."
)
EPILOG = """examples:
  radio-vlm new --preset tiny --out runs/tiny
  radio-vlm new --vision nvidia/C-RADIOv4-H --llm nvidia/NVIDIA-Nemotron-Nano-9B-v2 --out runs/nano-9b
  radio-vlm new --vision C-RADIOv4-SO400M --llm ./my-llm --projector norm=layernorm activation=gelu --out runs/llava
  radio-vlm new --vision c-radio_v4-h_half.pth.tar --llm ./my-llm --vitdet-window 16 \\
                --features layers=7,15,23,31 aggregation=dense summary=true --out runs/dense
  radio-vlm new --vision C-RADIOv4-H --llm Nemotron-H-8B --meta       only print the plan; nothing is downloaded

`radio-vlm new --list` prints the presets with their hub ids."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", metavar="NAME", help="a whole model by name (tiny); the options below override its parts"
    )
    parser.add_argument(
        "--vision", metavar="PRESET|ID|DIR|FILE", help="RADIO encoder: preset, release, hub id, folder or .pth.tar"
    )
    parser.add_argument("--llm", metavar="PRESET|ID|DIR", help="causal language model: preset, hub id or folder")
    parser.add_argument("--tokenizer", metavar="ID|DIR", help="tokenizer, if not the language model's own")
    parser.add_argument(
        "--projector", nargs="+", metavar="KEY=VALUE", default=[],
        help="e.g. type=pixel_shuffle downsample=2 head=nemotron hidden_size=20480 (default: as in Nemotron Nano V2 "
        "VL, sized for the parts), or type=token_merging keep=0.25",
    )  # fmt: skip
    parser.add_argument(
        "--geometry", nargs="+", metavar="NAME|KEY=VALUE", default=[],
        help="how images are cut: nemotron-omni, nemotron-nano-v2-vl, nemotron-nano-vl-8b, nvila, fixed-512, or e.g. "
        "mode=dynamic max_num_patches=3072, mode=tiles tile_size=512 max_tiles=12, mode=multi_scale "
        "scales=512,1024,1536, mode=fixed size=512,512; max_prompt_patches=N bounds a whole prompt",
    )  # fmt: skip
    parser.add_argument(
        "--video", nargs="+", metavar="KEY=VALUE", default=[],
        help="e.g. max_frames=8 fps=2.0 temporal_pool=4 pruning_rate=0.75"
    )
    parser.add_argument(
        "--features", nargs="+", metavar="KEY=VALUE", default=[],
        help="which features of the encoder are used: layers=7,15,23,31 (blocks, side by side), aggregation=dense "
        "(mean over the blocks up to each), summary=true (class tokens before the patches), normalize=layer_norm "
        "(default: those of the last block)",
    )  # fmt: skip
    parser.add_argument(
        "--vitdet-window", type=int, metavar="N",
        help="attention inside windows of N x N patches in most blocks, pictures resized to multiples of it; 0: none, "
        "whatever the checkpoint says",
    )  # fmt: skip
    parser.add_argument(
        "--vitdet-num-global", type=int, metavar="N", help="so many blocks stay global (default: as released, else 4)"
    )
    parser.add_argument(
        "--cpe-training", action="store_true",
        help="draw random position windows in training, as RADIO's own training does (default: as in evaluation)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"),
        help="dtype of the whole model (default: auto, that of the language model)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of all new weights (default: 0)")
    parser.add_argument("--random", action="store_true", help="random weights everywhere; read configs, no weights")
    parser.add_argument("--meta", action="store_true", help="print the plan and stop; allocates and downloads nothing")
    parser.add_argument("--list", action="store_true", help="list the presets and stop")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write the checkpoint to")


def run(args: argparse.Namespace) -> int:
    if args.list:
        print(preset_list())
        return 0
    from vlm.cli.parts import load_parts, model_preset, parse_pairs
    from vlm.errors import RadioVLMError

    preset = model_preset(args.preset)
    vision_name, llm_name = args.vision or preset.get("vision"), args.llm or preset.get("llm")
    if not vision_name or not llm_name:
        raise RadioVLMError("name both parts: --vision and --llm (or --preset tiny); --list shows what is known")
    if not args.meta and args.out is None:
        raise RadioVLMError("--out is missing: the folder to write to (or --meta to only print the plan)")
    if args.out is not None and args.out.is_dir() and any(args.out.iterdir()) and not args.meta:
        if not (args.out / "config.json").is_file():
            raise RadioVLMError(f"{args.out} is not empty and holds no checkpoint; give another --out")
    options = {
        name: {**preset.get(name, {}), **parse_pairs(getattr(args, name), f"--{name}")} or None
        for name in ("projector", "video", "features")
    }
    named = named_geometry(args.geometry)
    given = preset.get("geometry") or {}
    same = named.get("mode", "dynamic") == given.get("mode", "dynamic")
    options["geometry"] = {**(given if same else {}), **named} or None  # fields of another mode would be refused
    if isinstance((options["features"] or {}).get("layers"), int):
        options["features"]["layers"] = [options["features"]["layers"]]
    options["vision_options"] = {"cpe_training": args.cpe_training}
    words = (vision_name, llm_name, args.tokenizer, args.dtype)
    windows = window_options(args)

    # First without weights: a mistake shows before anything large is fetched, and so does the plan.
    parts = load_parts(*words, weights=False, download=not args.meta, windows=windows)
    planned = build(parts, options, on_meta=True)
    print(plan(planned, parts), flush=True)
    if args.meta:
        return 0
    import torch

    from vlm.cli.loading import quiet_transformers

    quiet_transformers(2 * sum(parameter.numel() for parameter in planned[0].parameters()))
    if not args.random:
        was_planned = parts.report is not None
        parts = load_parts(*words, windows=windows)
        if parts.report is not None and not was_planned:  # a preset is planned from its name alone
            print(f"\n{parts.report}")
    torch.manual_seed(args.seed)
    model, processor = build(parts, options)
    cast(model, model.language_model.dtype if args.dtype == "auto" else getattr(torch, args.dtype))
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    print(f"\nwritten to {args.out}\nnext: radio-vlm inspect --model {args.out}")
    return 0


def named_geometry(words: list[str]) -> dict:
    """`["nvila", "max_tiles=16"]` or pairs alone -> fields; the first word may be a name of `GEOMETRIES`."""
    from vlm.cli.parts import parse_pairs
    from vlm.errors import RadioVLMError
    from vlm.geometry import GEOMETRIES

    if not words or "=" in words[0]:
        return parse_pairs(words, "--geometry")
    if words[0] not in GEOMETRIES:
        known = ", ".join(GEOMETRIES)
        raise RadioVLMError(f"--geometry: expected KEY=VALUE or one of {known}; got {words[0]!r}")
    fields = {key: value for key, value in GEOMETRIES[words[0]].items() if key not in ("patch_size", "multiple")}
    return {**fields, **parse_pairs(words[1:], "--geometry")}


def window_options(args: argparse.Namespace) -> dict[str, int]:
    """The encoder's options named on the command line."""
    from vlm.errors import RadioVLMError

    named = {"vitdet_window_size": args.vitdet_window, "vitdet_num_global": args.vitdet_num_global}
    named = {name: value for name, value in named.items() if value is not None}
    if named.get("vitdet_window_size", 0) < 0 or named.get("vitdet_num_global", 1) < 1:
        raise RadioVLMError("--vitdet-window takes numbers from 0 on, --vitdet-num-global from 1 on")
    if "vitdet_num_global" in named and not named.get("vitdet_window_size"):
        raise RadioVLMError("--vitdet-num-global needs --vitdet-window: the side of a window in patches")
    return named


def build(parts, options: dict, on_meta: bool = False):
    """`vlm.build.build_vlm`, and where the parts came from noted in the config. Returns (model, processor)."""
    import torch

    from vlm.build import build_vlm
    from vlm.errors import RadioVLMError

    check_keys(options)
    try:
        with torch.device("meta" if on_meta else "cpu"):
            model, processor = build_vlm(parts.vision, parts.text, parts.tokenizer, **options)
    except ValueError as error:  # what does not fit together, worded by the part that refused
        raise RadioVLMError(str(error)) from error
    model.config.base_models = {"vision": parts.vision_origin, "text": parts.text_origin}
    if parts.report is not None and parts.report.heads_left_out:
        model.config.vision_heads_left_out = parts.report.heads_left_out
    return model, processor


def check_keys(options: dict) -> None:
    """Refuse keys that nothing reads: a misspelt one would leave the default in force without a word."""
    from projectors.components import get_projector
    from vlm.errors import RadioVLMError
    from vlm.video_settings import DEFAULT_VIDEO
    from vlm.vision_features import DEFAULT_FEATURES

    projector = options["projector"] or {}
    try:
        defaults = get_projector(projector.get("type", "pixel_shuffle")).defaults(1, 1)
    except ValueError as error:
        raise RadioVLMError(f"--projector: {error}") from error
    for name, known in (
        ("projector", {*defaults, "type"}),
        ("video", set(DEFAULT_VIDEO)),
        ("features", set(DEFAULT_FEATURES)),
    ):
        if unknown := sorted(set(options[name] or {}) - known):
            raise RadioVLMError(f"--{name}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def cast(model, dtype) -> None:
    """One dtype for the whole model, as it will be opened; what must stay float32 keeps what it has."""
    kept = model._keep_in_fp32_modules_strict or ()
    for name, parameter in model.named_parameters():
        if not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)


def preset_list() -> str:
    """Both tables of presets, with hub ids."""
    from encoders.presets import VISION_PRESETS
    from llm.presets import LLM_PRESETS

    rows = [("--vision", name, preset.hub_id or "(random weights)") for name, preset in VISION_PRESETS.items()]
    rows += [("--llm", name, preset.hub_id or "(random weights)") for name, preset in LLM_PRESETS.items()]
    return text_table(("for", "preset", "hub id"), rows)


def plan(built: tuple, parts) -> str:
    """What will be built: parts, parameters, tokens for a few image sizes."""
    from projectors.components import num_tokens
    from vlm.geometry import plan_picture

    model, _ = built
    config = model.config
    origins = {"vision_model": parts.vision_origin, "language_model": parts.text_origin}
    rows = [(name, count(n), f"{n:,}", origins.get(name, "new")) for name, n in parameter_rows(model)]
    total = sum(n for _, n in parameter_rows(model))
    rows.append(("total", count(total), f"{total:,}", ""))
    lines = [text_table(("module", "size", "parameters", "weights"), rows, right=(1, 2)), ""]
    lines += [text_table(("encoder", ""), encoder_rows(config)), ""]
    if parts.report is not None:
        lines += [str(parts.report), ""]
    tokens = []
    for width, height in ((512, 512), (1024, 768), (1240, 1754)):
        grids = plan_picture(height, width, config.geometry).maps
        shown = ("" if len(grids) == 1 else f"{len(grids)} of ") + f"{grids[0][0]}×{grids[0][1]}"
        total = sum(num_tokens(config.projector_config, *grid) for grid in grids)
        tokens.append((f"{width}×{height}", shown, total))
    lines.append(text_table(("image (w×h)", "grid (h×w)", "tokens"), tokens, right=(2,)))
    return "\n".join(lines)
