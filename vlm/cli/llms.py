"""`radio-vlm llms`: what each family of language models can do here, read from the records in `llm/model_families`."""

import argparse
import textwrap
from itertools import zip_longest

from vlm.cli.tables import text_table

HELP = "families of language models: packing, LoRA targets, blocks to shard, kernels, losses"
DESCRIPTION = (
    "Shows the families of language models this package knows in particular: how packed samples are kept apart, where\n"
    "LoRA goes, which blocks to wrap or shard, which kernels they can use and what their loss adds."
)
EPILOG = """examples:
  radio-vlm llms
  radio-vlm llms --markdown"""

# The terminal gets two tables: columns and the widths their cells are folded at, within 120 columns.
TERMINAL = (
    {"family": 16, "kind": 20, "packs": 35, "chat template": 13, "loss extras": 28},
    {"family": 16, "LoRA targets": 36, "block to wrap or shard": 28, "kernels": 34},
)
COLUMNS = tuple(dict.fromkeys(name for table in TERMINAL for name in table))  # of the README's table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")


def run(args: argparse.Namespace) -> int:
    print(markdown_table() if args.markdown else "\n\n".join([*map(terminal_table, TERMINAL), remarks()]))
    return 0


def records() -> list:
    """Every record, the one for unknown families last."""
    from llm.family import families, family_of

    return [*families().values(), family_of("")]


def cells(family) -> dict[str, list[str]]:
    """Column -> phrases of one family; an empty list where there is nothing to say."""
    known = bool(family.model_type)
    return {
        "family": [family.model_type or "any other"],
        "kind": [family.kind] if known else [],
        "packs": family.packing.split("; ") if family.packing else ["never"],
        "chat template": [family.turn_template] if family.turn_template else [],
        "LoRA targets": joined_targets(family.lora_targets) or ["every linear layer but the head"],
        "block to wrap or shard": list(family.block_classes) or ["what its class declares"],
        "kernels": list(family.kernels),
        "loss extras": family.loss_extras.split("; ") if family.loss_extras else [],
    }


def joined_targets(names: tuple[str, ...]) -> list[str]:
    """`("q_proj", "k_proj", "input_linear")` -> `["q/k_proj", "input_linear"]`: names of one ending share it."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stem, _, ending = name.rpartition("_")
        stems.setdefault(ending if ending == "proj" else name, []).append(stem)
    return [f"{'/'.join(found)}_proj" if ending == "proj" else ending for ending, found in stems.items()]


def terminal_table(widths: dict[str, int]) -> str:
    """Some columns for the terminal, every cell folded at its width."""
    rows = []
    for family in records():
        found = cells(family)
        folded = [fold("; ".join(found[name]), width) or [""] for name, width in widths.items()]
        rows += zip_longest(*folded, fillvalue="")
    return text_table(list(widths), rows)


def fold(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def remarks() -> str:
    """What the tables have no room for: full names, where LoRA is refused and why, notes."""
    families = [family for family in records() if family.model_type]
    refused, notes = {}, {}
    for family in families:
        for module, reason in family.lora_refused.items():
            refused.setdefault((module, reason), []).append(family.model_type)
        if family.notes:
            notes.setdefault(family.notes, []).append(family.model_type)
    lines = ["; ".join(f"{family.model_type}: {family.title}" for family in families)]
    lines += [f"No LoRA on {module} ({', '.join(who)}): {reason}" for (module, reason), who in refused.items()]
    lines += [f"{', '.join(who)}: {note}" for note, who in notes.items()]
    return "\n".join("\n  ".join(fold(line, 118)) for line in lines)


def markdown_table() -> str:
    """The table between `<!-- llms:begin -->` and `<!-- llms:end -->` in the README."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for family in records():
        found = cells(family)
        if family.model_type:
            found["family"] = [f"`{family.model_type}` {family.title}"]
            for column in ("LoRA targets", "block to wrap or shard", "kernels"):
                found[column] = [f"`{name}`" for name in found[column]]
        lines.append(f"| {' | '.join('; '.join(found[column]) or '–' for column in COLUMNS)} |")
    return "\n".join(lines)
