"""`radio-vlm features`: what a RADIO encoder sees in pictures and videos, as feature maps one can look at."""

import argparse
import time
from pathlib import Path

from vlm.errors import RadioVLMError

HELP = "feature maps of an encoder, as pictures and one page"
DESCRIPTION = (
    "Encodes pictures (PNG, JPEG, TIFF, WebP, DICOM) and videos, and shows their patch features: red, green and blue\n"
    "are the first three principal components. Writes to --out:\n"
    "  NAME.features.png    a picture beside its map; the contact sheet of a video\n"
    "  NAME.features.apng   a video beside its maps, which share one colour basis\n"
    "  features.html        all maps, mean and deviation of every block, token counts, timings, encoder facts"
)
EPILOG = """examples:
  radio-vlm features photo.jpg --encoder nvidia/C-RADIOv4-H
  radio-vlm features a.png b.png --encoder c-radio_v4-h_half.pth.tar --adaptor siglip2-g dino_v3 --layers 7 15 23 31
  radio-vlm features photo.jpg --encoder nvidia/C-RADIOv4-SO400M --vitdet-window 16 --size 1024 1536
  radio-vlm features clip.mp4 --encoder runs/demo/export        the vision tower of a RADIO-VLM checkpoint"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("media", nargs="+", type=Path, metavar="IMAGE|VIDEO", help="files to encode")
    parser.add_argument(
        "--encoder", required=True, metavar="ID|DIR|FILE", help="RADIO checkpoint of any format, or a RADIO-VLM folder"
    )
    parser.add_argument(
        "--adaptor", nargs="+", action="extend", default=[], metavar="NAME", help="teacher heads to show as well"
    )
    parser.add_argument("--vitdet-window", type=int, metavar="N", help="attention windows of N × N patches")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="encode at exactly this height and width")
    size.add_argument(
        "--max-size", type=int, metavar="PX", help="bound of the longer side (default: 1024, or what the release takes)"
    )
    parser.add_argument(
        "--layers", nargs="+", type=int, metavar="N", help="blocks to show beside the last layer, from 0 (default: 3)"
    )
    parser.add_argument("--shared-basis", action="store_true", help="one colour basis for all files, not one each")
    parser.add_argument("--max-frames", type=int, default=16, metavar="N", help="frames of a video (default: 16)")
    parser.add_argument("--fps", type=float, default=2.0, metavar="F", help="frames a second of a video (default: 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/features"), metavar="DIR", help="folder (default: runs/features)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto (float32 on a CPU, else as stored), float32, bfloat16 (default: auto)"
    )


def run(args: argparse.Namespace) -> int:
    from vlm.cli import features_encode as fe
    from vlm.cli.features_page import write_page
    from vlm.cli.loading import quiet_transformers

    paths = [path.expanduser() for path in args.media]
    fe.check_media(paths, args.max_frames, args.fps)
    if args.out.exists() and not args.out.is_dir():
        raise RadioVLMError(f"--out: {args.out} is a file, not a folder")
    quiet_transformers(0)
    start = time.perf_counter()
    encoder = fe.open_encoder(args.encoder, args.adaptor, args.vitdet_window, args.device, args.dtype)
    load_seconds = time.perf_counter() - start
    layers = fe.chosen_layers(encoder, args.layers)
    size = {"exact": args.size and tuple(args.size), "longest": args.max_size}
    clip = {"max_frames": args.max_frames, "fps": args.fps}

    results = []
    for path in paths:
        results.append(fe.encode(encoder, path, size, layers, clip))
        if not args.shared_basis:
            fe.colour(results[-1:])
    if args.shared_basis:
        fe.colour(results)
    written = write_pictures(results, args.out)
    write_page(args.out / "features.html", results, encoder, args, load_seconds)
    print(summary(results))
    print(f"\nwrote {args.out / 'features.html'} and {', '.join(path.name for path in written)}")
    return 0


def write_pictures(results: list, out: Path) -> list[Path]:
    """The PNG of every file and the animation of every video; names are those of the files, told apart if need be."""
    from vlm.cli.features_pictures import contact_sheet, picture_sheet, write_animation

    out.mkdir(parents=True, exist_ok=True)
    written, taken = [], set()
    for done in results:
        stem, number = done.path.stem, 2
        while stem in taken:
            stem, number = f"{done.path.stem}-{number}", number + 1
        taken.add(stem)
        target = out / f"{stem}.features.png"
        (contact_sheet if done.kind == "video" else picture_sheet)(done).save(target)
        written.append(target)
        if done.kind == "video":
            written.append(target.with_suffix(".apng"))
            write_animation(done, written[-1])
    return written


def summary(results: list) -> str:
    """The terminal's table: one row a file."""
    from vlm.cli.tables import text_table

    head = ("file", "size (h×w)", "encoded at", "grid", "patches", "prefix", "after 2×2 shuffle", "ms")
    rows = []
    for done in results:
        frames = f" × {len(done.frames)} frames" if done.kind == "video" else ""
        sizes = ["×".join(map(str, pair)) for pair in (done.original, done.size, done.grid)]
        tokens = (done.patches, done.prefix_tokens, done.shuffled_tokens)
        rows.append((done.path.name + frames, *sizes, *tokens, f"{done.milliseconds:.1f}"))
    return text_table(head, rows, right=(4, 5, 6, 7))
