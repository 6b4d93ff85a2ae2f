"""`radio-vlm make-expert-data`: run experts over labelled images and write training conversations or test questions."""

import argparse
import logging
from pathlib import Path

HELP = "run experts over your labelled images and write conversations for training or questions for evaluation"
DESCRIPTION = """Reads a folder of medical images with true answers, runs the experts that fit each image, and writes
conversations: calls with their results, follow-ups, questions that need no expert, experts of another modality, experts
that fail or are not there, results that the image contradicts, plain questions and reports. Of val and test: one
question a record, for an evaluation with experts.

--images holds images.jsonl, one image a line:
  {"image": "ct/12.dcm", "patient": "P7", "labels": {"number": 2, "side": "left"}, "report": "...",
   "qa": [{"question": "Table?", "answer": "yes"}], "split": "train"}
with `volume` in place of `image` for a series or NIfTI, and `modality` where the header is silent; or one CSV with the
columns image, patient and a column a label; or ChestX-ray14 with its Data_Entry_2017.csv. A patient without a split is
given one by a hash.

What was converted and run is kept in --out: a run that was stopped goes on where it was. What cannot be read is named
by file and line of the list, never by the image's own file, which may name a patient.

Out of your questions, answers and reports is taken what the image's own header states of the patient, and the list's
word for the patient. Any other name in them stays: read what you hand on."""
EPILOG = """examples:
  radio-vlm make-expert-data --images hospital --out data/experts
  radio-vlm make-expert-data --images hospital --out data/experts-test --split test --experts LESIONS
  radio-vlm make-expert-data --images hospital --out data/experts --shares contradiction=1 report=0 --workers 8

A recipe takes all parts with `data.sources: data/experts/mixture.yaml`. Research software, not for clinical use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from training.data.expert_dialogues.shares import DEFAULT_SHARES

    shares = " ".join(f"{form}={share:g}" for form, share in DEFAULT_SHARES.items())
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="labelled images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; made if missing")
    parser.add_argument(
        "--experts", metavar="NAME,NAME", help="default: all that can be used here and read an image of the set"
    )
    parser.add_argument("--expert-weights", type=Path, metavar="DIR", help="folder that holds experts' weights")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="default: train")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--wording", type=Path, metavar="FILE", help="YAML with your own questions and sentences")
    parser.add_argument(
        "--mixture",
        default="vila-m3",
        metavar="vila-m3|FILE",
        help="how often parts repeat: as published, or your YAML",
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        default=[],
        metavar="FORM=NUMBER",
        help=f"conversations an image, or a YAML file: {shares}",
    )
    parser.add_argument(
        "--originals", action="store_true", help="keep DICOM and NIfTI, without identifiers, instead of PNGs"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, each with its experts; default: 1"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of the split")


def run(args: argparse.Namespace) -> int:
    from training.data.expert_dialogues.make import Settings, make
    from training.data.expert_dialogues.mixture_file import read_mixture
    from training.data.expert_dialogues.shares import read_shares
    from training.data.expert_dialogues.wording import read_wording
    from vlm.errors import RadioVLMError

    for option in ("workers", "limit"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise RadioVLMError(f"--{option} must be at least 1, this is {getattr(args, option)}")
    if args.expert_weights is not None and not args.expert_weights.is_dir():
        raise RadioVLMError(f"--expert-weights: no such folder {args.expert_weights}")
    named = None if args.experts is None else [name.strip() for name in args.experts.split(",")]
    experts = None if named is None else tuple(name for name in named if name)
    settings = Settings(
        args.images, args.out, experts, args.expert_weights, args.split, args.seed, read_wording(args.wording),
        read_mixture(args.mixture), read_shares(args.shares), args.originals, args.workers, args.limit,
    )  # fmt: skip
    logging.getLogger("vlm.experts").setLevel(logging.WARNING)  # a line a call would tear the progress bar
    try:
        summary = make(settings, progress=True)
    except ImportError as error:
        raise RadioVLMError(str(error)) from error
    print("\n".join([*summary.lines(), f"written to {args.out}"]))
    return 0
