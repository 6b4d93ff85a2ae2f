"""`radio-vlm export`: the hand-over folder of a checkpoint, which opens without radio-vlm installed."""

import argparse
from pathlib import Path

HELP = "write a self-contained checkpoint folder with a model card"
DESCRIPTION = (
    "Copies a checkpoint (weights byte for byte, processor, tokenizer) and puts its code and a model card beside it.\n"
    "The result opens with AutoModelForImageTextToText / AutoProcessor / pipeline(..., trust_remote_code=True) on a\n"
    "machine that has only torch, transformers and Pillow. Upload it as it is: `hf upload NAME OUT`.\n\n"
    "A RADIO encoder in any form (folder, .pth.tar, hub id, release) is written for AutoModel likewise: in the layout\n"
    "of transformers where that says everything, else with the code that windows, normalizers and teacher heads need."
)
EPILOG = """examples:
  radio-vlm export runs/demo/stage4 runs/demo/export
  radio-vlm export runs/nano-9b/stage4 out --results runs/nano-9b/results.json
  radio-vlm export c-radio_v4-h_half.pth.tar c-radio --adaptors siglip2-g dino_v3"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder or hub id, or a RADIO encoder")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--results", type=Path, metavar="FILE",
        help="results.json for the card (default: the one in MODEL or in the folder above it, if there is one)",
    )  # fmt: skip
    parser.add_argument(
        "--adaptors", nargs="+", metavar="NAME",
        help="teacher heads of an encoder to take along (default: those its folder names)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from vlm.cli.loading import quiet_transformers
    from vlm.encoder_export import export_encoder, is_encoder
    from vlm.export import ExportError, export

    if is_encoder(args.model):
        if args.results:
            raise ExportError(f"--results: {args.model} is an encoder, its card shows none")
        quiet_transformers(0)
        out = export_encoder(args.model, args.out, args.adaptors)
    elif args.adaptors:
        raise ExportError(f"--adaptors: {args.model} is no RADIO encoder")
    else:
        out = export(args.model, args.out, args.results)
    files = sorted(path for path in out.iterdir() if path.is_file())
    size = sum(path.stat().st_size for path in files)
    code = [path.name for path in files if path.suffix == ".py"]
    print(
        f"{out}: {len(files)} files, {size / 1e6:.1f} MB, of these {len(code)} of code; model card in {out}/README.md"
    )
    return 0
