"""`radio-vlm experts`: which expert models there are, what each says of itself, and what this machine lacks for it."""

import argparse
import textwrap
from pathlib import Path

HELP = "expert models that a model may call: what they read and return, whether they can run here"
DESCRIPTION = (
    "Lists every expert with its trigger, the images it reads, what it returns, where its weights come from, and\n"
    "whether it can run here. Nothing is downloaded unless asked for; read the licence of weights before you use them."
)
EPILOG = """examples:
  radio-vlm experts
  radio-vlm experts --download VISTA3D
  radio-vlm experts --expert-weights weights/          each expert in a folder of its own there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--download", metavar="NAME", help="fetch the weights of an expert, then list")
    parser.add_argument(
        "--expert-weights", type=Path, metavar="DIR", help="folder with experts' weights (default: where each looks)"
    )


def run(args: argparse.Namespace) -> int:
    from vlm.errors import RadioVLMError
    from vlm.experts import ExpertError, expert_names, get_expert

    root = args.expert_weights
    if root is not None and not root.is_dir():
        raise RadioVLMError(f"--expert-weights: no folder {root}")
    if args.download:
        try:
            get_expert(args.download).download()
        except ExpertError as error:
            raise RadioVLMError(f"--download: {error}") from error
    print("\n\n".join(entry(get_expert(name), root) for name in expert_names()))
    return 0


def entry(expert: type, root: Path | None = None) -> str:
    """What the list says of one expert, whose weights may lie below `root`."""
    from vlm.experts.weights import why_not

    card = expert.card
    lines = [
        f"<{card.name}({'|'.join(card.arguments)})>",
        f"reads {card.modality}, body part: {card.body_part}",
        f"returns {card.returns}",
        f"weights: {card.weights}",
        why_not(expert, root) or "can be used here",
    ]
    folded = [textwrap.fill(line, 116, break_long_words=False, break_on_hyphens=False) for line in lines]
    return "\n".join([folded[0], *(textwrap.indent(line, "    ") for line in folded[1:])])
