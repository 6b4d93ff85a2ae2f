"""`radio-vlm tokens FILE...`: what images, documents, videos and volumes cost in tokens, by geometry and projector."""

import argparse
import json
import sys
from pathlib import Path

HELP = "what a file costs in tokens under each geometry and projector"
DESCRIPTION = (
    "For each image, PDF, TIFF, DICOM file, volume (a folder of slices, NIfTI) or video: the size it is resized to,\n"
    "the views it is cut into, the patches the encoder sees and the tokens the language model gets (thumbnails\n"
    "included; words and labels come on top). Only headers are read. With --model: that model's own settings, and the\n"
    "file is really encoded."
)
EPILOG = """examples:
  radio-vlm tokens page.png report.pdf clip.mp4
  radio-vlm tokens report.pdf --pages 1-20 --dpi 200 --geometry nemotron-omni nvila
  radio-vlm tokens page.png --geometry mode=tiles tile_size=512 max_tiles=6 --projector type=pixel_shuffle downsample=4
  radio-vlm tokens clip.mp4 --max-frames 64 --pruning-rate 0.75
  radio-vlm tokens page.png --model runs/demo/export --json tokens.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="images, documents, videos, volumes")
    parser.add_argument(
        "--geometry", nargs="+", action="extend", default=[], metavar="NAME|KEY=VALUE",
        help="named geometries, or one in key=value words (default: all named ones)",
    )  # fmt: skip
    parser.add_argument(
        "--projector", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="one projector, e.g. type=pixel_shuffle downsample=4 (default: all)",
    )  # fmt: skip
    parser.add_argument("--model", metavar="DIR|ID", help="a checkpoint: its own settings, counted by its processor")
    parser.add_argument("--each", action="store_true", help="a table for every page of a document")
    parser.add_argument("--pages", metavar="1-3,5", help="pages of documents (default: all)")
    parser.add_argument("--dpi", type=float, help="at which PDF pages are rendered (default: 144)")
    parser.add_argument("--slices", type=int, default=8, metavar="N", help="slices of a volume (default: 8)")
    parser.add_argument("--modality", metavar="CT|MR|...", help="of NIfTI, which does not say it; needed with --model")
    parser.add_argument("--fps", type=float, help="frames a second of videos (default: 2, or the model's)")
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most (default: 128, or the model's)")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="of videos")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="of videos")
    parser.add_argument(
        "--frame-patches", type=int, metavar="N", help="budget of a frame in mode dynamic; 0: as images (default: 1024)"
    )
    parser.add_argument(
        "--temporal-patch", type=int, choices=(1, 2), metavar="N", help="frames that enter the encoder as one (1 or 2)"
    )
    parser.add_argument("--temporal-pool", type=int, metavar="N", help="frames averaged behind the projector")
    parser.add_argument("--pruning-rate", type=float, metavar="Q", help="share of video tokens that EVS leaves out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too, page by page")


def run(args: argparse.Namespace) -> int:
    from vlm.cli.token_costs import bill, geometries, projectors
    from vlm.cli.token_inputs import read_input
    from vlm.cli.token_tables import block, columns, legend
    from vlm.errors import SampleError

    processor = model_processor(args) if args.model else None
    if processor is None:
        from vlm.cli.parts import parse_pairs

        choices, forms = projectors(parse_pairs(args.projector, "--projector")), geometries(args.geometry)
    else:
        choices, forms = of_model(processor)
    video = video_settings(args, processor)
    sampling = sampling_of(args, processor)

    read, refused = [], []
    for path in args.files:
        try:
            read += one_a_page(read_input(path, sampling)) if args.each else [read_input(path, sampling)]
        except (SampleError, ImportError) as error:
            refused.append(f"{path}: {error.message if isinstance(error, SampleError) else error}")
    bills = [[bill(source, form, choices, video) for form in forms] for source in read]
    found = columns(choices, [row for rows in bills for row in rows])
    parts = [block(source, rows, found, forms, video.pruning_rate) for source, rows in zip(read, bills)]
    real = [None] * len(read)
    if processor is not None:
        for place, source in enumerate(read):
            try:
                real[place] = encoded_count(processor, source, sampling, args)
                parts[place] += f"\nencoded: {real[place][0]:,} visual tokens, a prompt of {real[place][1]:,} tokens"
            except SampleError as error:
                refused.append(f"{source.path}: {error.message}")
    if parts:
        words = legend(found)
        print("\n\n".join(([f"tokens, by what projectors leave of the patches:\n{words}"] if words else []) + parts))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(as_json(read, bills, real, choices, forms, video), indent=1) + "\n")
    if refused:
        print(("\n" if parts else "") + "\n".join(refused), file=sys.stderr)
    return 2 if refused else 0


def model_processor(args: argparse.Namespace):
    """The checkpoint's processor; options that would contradict it are refused."""
    from vlm.cli.loading import load_processor
    from vlm.errors import RadioVLMError

    named = ("geometry", "projector", "frame_patches", "temporal_patch", "temporal_pool")
    if given := [f"--{name.replace('_', '-')}" for name in named if getattr(args, name) not in (None, [])]:
        raise RadioVLMError(f"{', '.join(given)}: with --model these are the model's own; leave out one or the other")
    return load_processor(args.model)


def of_model(processor) -> tuple[list, list]:
    """The only projector and the only geometry, as the processor has them."""
    from vlm.cli.token_costs import Geometry, Projector

    config, settings = processor.projector_config, processor.image_processor.geometry
    name = f"{config['type']} {config['downsample']}" if config.get("downsample", 1) > 1 else config["type"]
    return [Projector(name, config)], [Geometry(f"the model's ({settings['mode']})", settings)]


def video_settings(args: argparse.Namespace, processor):
    from vlm.cli.token_costs import Video
    from vlm.errors import RadioVLMError
    from vlm.evs import check_pruning_rate

    if processor is not None:
        found = Video.of(processor.video)
    else:
        counts = [n for n in (args.temporal_patch, args.temporal_pool) if n is not None]
        if min(counts, default=1) < 1 or (args.frame_patches or 0) < 0:
            raise RadioVLMError("--temporal-patch and --temporal-pool take numbers from 1 on, --frame-patches from 0")
        budget = Video.max_num_patches if args.frame_patches is None else args.frame_patches or None
        found = Video(args.temporal_patch or 1, budget, args.temporal_pool or 1)
    if args.pruning_rate is None:
        return found
    from dataclasses import replace

    try:
        return replace(found, pruning_rate=check_pruning_rate(args.pruning_rate))
    except ValueError as error:
        raise RadioVLMError(f"--pruning-rate: {error}") from error


def sampling_of(args: argparse.Namespace, processor):
    """What is said, else the model's own, else as Nemotron samples."""
    from vlm.cli.token_inputs import Sampling
    from vlm.errors import RadioVLMError
    from vlm.prompt_media import MAX_FRAMES

    own = processor.video if processor is not None else {}
    fps = Sampling.fps if processor is None else own["fps"]
    frames = (own.get("max_frames") if processor is not None else Sampling.max_frames) or MAX_FRAMES
    fps = fps if args.fps is None else args.fps
    frames = frames if args.max_frames is None else args.max_frames
    if not fps > 0 or frames < 1:
        raise RadioVLMError(f"--fps {fps:g} and --max-frames {frames} must be above 0")
    if args.start is not None and args.end is not None and args.start >= args.end:
        raise RadioVLMError(f"--start {args.start:g} must be before --end {args.end:g}")
    if args.slices < 1:
        raise RadioVLMError(f"--slices {args.slices} must be above 0")
    return Sampling(fps, frames, args.start, args.end, args.pages, args.dpi, args.slices)


def one_a_page(source) -> list:
    """A document as one input a page; anything else as it is (slices of a volume are alike)."""
    from vlm.cli.token_inputs import TokenInput

    if source.kind != "document":
        return [source]
    return [
        TokenInput(source.path.with_name(f"{source.path.name}, page {number}"), "image", (size,))
        for number, size in zip(source.numbers, source.sizes)
    ]


def encoded_count(processor, source, sampling, args: argparse.Namespace) -> tuple[int, int]:
    """(visual tokens, all tokens) of a prompt of this file alone, as the processor really writes it."""
    from vlm.cli.token_inputs import visual_count
    from vlm.media.pages import open_document

    if source.kind == "video":
        options = {"fps": sampling.fps, "max_frames": sampling.max_frames, "start": args.start, "end": args.end}
        content = [{"type": "video", "video": str(source.path)} | {k: v for k, v in options.items() if v is not None}]
    elif source.kind == "document":
        options = {} if sampling.dpi is None else {"dpi": sampling.dpi}
        pages = open_document(source.path, pages=sampling.pages, **options)
        content = [{"type": "image", "image": page} for page in pages]
    elif source.kind == "volume":
        asked = {"volume": str(source.path), "slices": sampling.slices, "modality": args.modality}
        content = [{"type": "volume", **asked}]
    else:
        content = [{"type": "image", "image": str(source.path)}]
    messages = [{"role": "user", "content": content}]
    encoded = processor.encode(messages, return_labels=False, pruning_rate=args.pruning_rate)
    return visual_count(encoded["mm_token_type_ids"]), len(encoded["input_ids"])


def as_json(read: list, bills: list, real: list, choices: list, forms: list, video) -> dict:
    """Everything, for programs: files -> geometries -> projectors."""
    from dataclasses import asdict

    files = []
    for source, rows, count in zip(read, bills, real):
        entry = {"file": str(source.path), "kind": source.kind, "sizes_hw": source.sizes, "frames": source.frames}
        entry["geometries"] = {row.geometry: _row_json(row) for row in rows}
        if count is not None:
            entry["encoded"] = {"visual_tokens": count[0], "prompt_tokens": count[1]}
        files.append(entry)
    return {
        "files": files,
        "geometries": {form.name: form.settings for form in forms},
        "projectors": {choice.name: choice.config for choice in choices},
        "video": asdict(video),
    }


def _row_json(row) -> dict:
    if row.error:
        return {"error": row.error}
    canvases = [
        [{"grid_hw": [c.grid_h, c.grid_w], "views": [c.rows, c.cols]} for c in plan.canvases] for plan in row.plans
    ]
    found = {"canvases": canvases, "patches": row.patches, "message": row.message}
    if row.groups:
        found |= {"tubelets": row.tubelets, "groups": row.groups}
    costs = {}
    for name, cost in row.costs.items():
        costs[name] = {"error": cost.error} if cost.error else {"pages": cost.pages, "tokens": cost.tokens}
        if row.groups and not cost.error:
            costs[name]["kept"] = cost.kept
    return found | {"projectors": costs}
