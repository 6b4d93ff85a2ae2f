"""`mixture.yaml`: the parts as sources of a recipe, each with how often an epoch repeats it.

`vila-m3` follows the published repeats of VILA-M3 (arXiv 2411.12915; its training scripts repeat the names of data
sets): VQA sets x4, reports x1, Diff-VQA in the expert form x2, VISTA3D x8, BRATS x16, text alone x10. What has no
published figure takes that of its category: an expert that draws regions counts like VISTA3D (8), one that classifies
like Diff-VQA, which is asked through a classifier (2); negatives, single questions on an image, like the VQA sets (4).
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from vlm.errors import RadioVLMError

VILA_M3 = "vila-m3"
PUBLISHED = {"expert-VISTA3D": 8, "expert-BRATS": 16, "vqa": 4, "reports": 1}
SEGMENTATION, CLASSIFICATION, NEGATIVES = 8, 2, 4
NOTE = (
    "# Parts of one medical mixture, for `data.sources` of a recipe; repeats are passes over a part an epoch.\n"
    "# VILA-M3 also repeats text-only medical questions 10 times; none are made here.\n"
)


def read_mixture(said: str) -> str | dict[str, dict[str, float]]:
    """`vila-m3`, or the user's YAML: part -> repeats, or part -> {repeats: ...} or {weight: ...}."""
    if said == VILA_M3:
        return VILA_M3
    import yaml

    try:
        table = yaml.safe_load(Path(said).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RadioVLMError(f"--mixture {said}: neither {VILA_M3} nor a file that can be read: {error}") from None
    if not isinstance(table, dict) or not table:
        raise RadioVLMError(f"--mixture {said}: expected lines such as `expert-LESIONS: 8`")
    read = {str(part): _entry(said, part, value) for part, value in table.items()}
    if len({tuple(entry) for entry in read.values()}) > 1:
        raise RadioVLMError(f"--mixture {said}: some parts have 'repeats', others 'weight'; use one of them for all")
    return read


def check_mixture(chosen: str | Mapping[str, Any], possible: Sequence[str]) -> None:
    """Refuse a user's mixture that names a part which cannot come about; with weights every possible part needs one."""
    if chosen == VILA_M3:
        return
    if unknown := [part for part in chosen if part not in possible]:
        raise RadioVLMError(f"--mixture: unknown part {unknown[0]!r}; parts are: {', '.join(possible)}")
    missing = [part for part in possible if part not in chosen]
    if missing and any("weight" in entry for entry in chosen.values()):
        raise RadioVLMError(f"--mixture: the part {missing[0]!r} needs a weight, too; 0 leaves it out")


def mixture_of(parts: Sequence[str], drawing: Set[str], chosen: str | Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of `mixture.yaml`; a part that the user's mixture does not name is seen once an epoch.

    drawing: experts whose results have masks.
    """
    if chosen == VILA_M3:
        return [{"path": part, "repeats": vila_m3_repeats(part, drawing)} for part in parts]
    return [{"path": part, **chosen.get(part, {"repeats": 1})} for part in parts]


def vila_m3_repeats(part: str, drawing: Set[str]) -> int:
    """Passes over a part an epoch."""
    if part in PUBLISHED:
        return PUBLISHED[part]
    if part.startswith("expert-"):
        return SEGMENTATION if part.removeprefix("expert-") in drawing else CLASSIFICATION
    return NEGATIVES


def mixture_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The file's text."""
    import yaml

    return NOTE + yaml.safe_dump([dict(entry) for entry in entries], sort_keys=False, default_flow_style=None)


def _entry(file: str, part: Any, value: Any) -> dict[str, float]:
    entry = value if isinstance(value, dict) else {"repeats": value}
    if len(entry) != 1 or (key := next(iter(entry))) not in ("repeats", "weight"):
        raise RadioVLMError(f"--mixture {file}: {part}: give it a number, or one of repeats and weight")
    number = entry[key]
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
        raise RadioVLMError(f"--mixture {file}: {part}: {key} must be a number of at least 0, not {number!r}")
    return {key: number}
