"""What a file costs under a geometry and a projector: patches for the encoder, tokens for the language model.

Not a command. Geometries are those of `vlm.geometry.GEOMETRIES`, projectors those of the registry; both lists are read,
never written here, so a new one appears by itself.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from vlm.cli.token_inputs import TokenInput
from vlm.errors import RadioVLMError

FOLDS = (2, 3, 4)  # `downsample` of the projectors that have it
D_VISION, D_TEXT = 1280, 4096  # counts do not depend on widths


@dataclass(frozen=True)
class Projector:
    """One projector with its settings; `name` is what the tables call it."""

    name: str
    config: dict


@dataclass(frozen=True)
class Geometry:
    """A geometry by name."""

    name: str
    settings: dict


@dataclass(frozen=True)
class Video:
    """How frames become tokens; see `RadioVLMConfig.video`."""

    temporal_patch_size: int = 1
    max_num_patches: int | None = 1024
    temporal_pool: int = 1
    pruning_rate: float = 0.0

    @classmethod
    def of(cls, settings: dict) -> "Video":
        """Of a processor's `video` settings."""
        known = {name: settings[name] for name in cls.__dataclass_fields__ if name in settings}
        return cls(**known)


@dataclass(frozen=True)
class Cost:
    """The bill of one file.

    Attributes:
        pages: tokens of each page; of a video one entry, a group of frames.
        tokens: what the language model gets in all, before pruning.
        kept: the same after pruning; None where the projector cannot be pruned.
        error: why there is no bill.
    """

    pages: tuple[int, ...] = ()
    tokens: int = 0
    kept: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """One file under one geometry. `groups`: of a video, how often the tokens of a group of frames are paid."""

    geometry: str
    plans: tuple = ()
    patches: int = 0
    tubelets: int = 0
    groups: int = 0
    message: str | None = None
    error: str | None = None
    costs: dict[str, Cost] = field(default_factory=dict)


def projectors(pairs: dict | None = None) -> list[Projector]:
    """The one that `pairs` describe, else every registered one: as it is, and with each of `FOLDS` if it folds."""
    from projectors.components import default_config, get_projector, projector_names

    if pairs:
        try:
            config = padding(default_config(pairs, D_VISION, D_TEXT)) | pairs
            known = {*get_projector(config["type"]).defaults(D_VISION, D_TEXT), "type", "summary_tokens"}
        except ValueError as error:
            raise RadioVLMError(f"--projector: {error}") from error
        if unknown := sorted(set(pairs) - known):
            raise RadioVLMError(f"--projector: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        others = " ".join(f"{key}={value}" for key, value in pairs.items() if key != "type")
        return [Projector(f"{config['type']} {others}".strip(), config)]
    found = []
    for kind in projector_names():
        config = padding(default_config({"type": kind}, D_VISION, D_TEXT))
        folds = isinstance(config.get("downsample"), int) and config["downsample"] > 1
        found += [Projector(f"{kind} {n}", config | {"downsample": n}) for n in FOLDS] if folds else []
        found += [] if folds else [Projector(kind, config)]
    return found


def padding(config: dict) -> dict:
    """A projector that can fill up odd grids does so: one geometry then suits every setting of it."""
    return config | ({"odd_grids": "pad"} if "odd_grids" in config else {})


def geometries(words: list[str]) -> list[Geometry]:
    """Names of `GEOMETRIES` and one geometry in key=value words; all names for none."""
    from vlm.cli.parts import parse_pairs
    from vlm.geometry import GEOMETRIES, check_geometry

    names = [word for word in words if "=" not in word]
    pairs = parse_pairs([word for word in words if "=" in word], "--geometry")
    if unknown := [name for name in names if name not in GEOMETRIES]:
        known = f"{', '.join(GEOMETRIES)}, or KEY=VALUE ..."
        known += "; files stand before the options" if any(Path(name).exists() for name in unknown) else ""
        raise RadioVLMError(f"--geometry: unknown {', '.join(unknown)}; known: {known}")
    try:
        found = [Geometry(name, check_geometry(GEOMETRIES[name])) for name in names or ({} if pairs else GEOMETRIES)]
        return found + ([Geometry(pairs.get("mode", "dynamic"), check_geometry(pairs))] if pairs else [])
    except ValueError as error:
        raise RadioVLMError(f"--geometry: {error}") from error


def fitted(settings: dict, config: dict) -> dict:
    """The geometry with grids that the projector takes. Raises ValueError where its sizes forbid that."""
    from projectors.components import grid_multiple
    from vlm.geometry import check_geometry

    multiple = math.lcm(settings["multiple"], grid_multiple(config))
    return settings if multiple == settings["multiple"] else check_geometry({**settings, "multiple": multiple})


def plan(source: TokenInput, settings: dict, video: Video):
    """`plan_prompt` of all pages of a file, or of a video's frames."""
    from vlm.geometry import Size, plan_prompt

    tubelets = -(-source.frames // video.temporal_patch_size)
    sizes = [Size(height, width, tubelets) for height, width in source.sizes]
    return plan_prompt(sizes, settings, {"max_num_patches": video.max_num_patches})


def bill(source: TokenInput, geometry: Geometry, choices: list[Projector], video: Video) -> Row:
    """One file under one geometry with every projector. What cannot be is said in `error`, not raised."""
    tubelets = -(-source.frames // video.temporal_patch_size)
    groups = -(-tubelets // video.temporal_pool)
    try:
        planned = plan(source, geometry.settings, video)
    except ValueError as error:
        return Row(geometry.name, error=str(error))
    patches = sum(picture.num_patches for picture in planned.plans) * max(tubelets, 1)
    costs = {choice.name: cost(source, geometry.settings, choice.config, video, groups) for choice in choices}
    return Row(geometry.name, planned.plans, patches, tubelets, groups, planned.message, None, costs)


def cost(source: TokenInput, settings: dict, config: dict, video: Video, groups: int) -> Cost:
    """Tokens by the projector's own `num_tokens`, the one source of truth for placeholders."""
    from projectors.components import num_tokens
    from vlm.evs import check_places, kept_tokens

    try:
        plans = plan(source, fitted(settings, config), video).plans
        pages = tuple(sum(num_tokens(config, *grid) for grid in picture.maps) for picture in plans)
        if not groups:
            return Cost(pages, sum(pages), sum(pages))
        whole = groups * pages[0]
        try:
            check_places(config, video.pruning_rate, video.temporal_pool)
        except ValueError as error:
            if video.temporal_pool > 1:
                return Cost(error=str(error))
            return Cost(pages, whole, None)
        return Cost(pages, whole, kept_tokens(groups, pages[0], video.pruning_rate))
    except ValueError as error:
        return Cost(error=str(error))
