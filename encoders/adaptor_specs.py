"""What teacher heads a checkpoint holds: `config.adaptors`, read off the shapes of its weights.

Widths and depths come from the shapes, the kind of head from which weights exist. What the checkpoint's own config says
about them is compared, never trusted over the weights: a contradiction is an error that names both.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from encoders.adaptors import TeacherAdaptor
from encoders.errors import RadioCheckpointError
from encoders.reference_args import is_dinov2

PREFIX = "adaptors."
HALVES = {"summary": "head_mlp", "feature": "feat_mlp"}
ATTENTION_HEADS = 16  # cannot be read off any shape; every attention head released has this many
# Names under which one teacher is known; the first of each row is that of the newest release.
ALIASES = (
    ("siglip2-g", "siglip2-g-384", "siglip2-giant", "siglip2-giant-opt-patch16-384"),
    ("siglip2-so400m", "siglip2-so400m-naflex", "siglip2-so400m-patch16-naflex"),
    ("siglip", "siglip-so400m", "siglip-so400m-patch14-384"),
    ("clip", "dfn-clip", "dfn5b-clip", "dfn5b", "ViT-H-14-378-quickgelu"),
    ("dino_v3_7b", "dino_v3", "dinov3", "dinov3-7b", "dinov3-vit7b16"),
    ("dino_v2", "dinov2", "dino_v2_g", "dinov2-g", "dinov2-vitg14-reg"),
    ("sam3", "sam-3"),
    ("sam", "sam-h", "sam-vit-h"),
)

Shapes = Mapping[str, Any]  # name -> shape, or anything with a `.shape`


def held_adaptors(names: Iterable[str]) -> list[str]:
    """Teachers of which there is at least one weight (`adaptors.NAME.head_mlp...`, `.feat_mlp...`), in order."""
    found: dict[str, None] = {}
    for name in names:
        if name.startswith(PREFIX):
            for half in HALVES.values():
                teacher, middle, _ = name.removeprefix(PREFIX).partition(f".{half}.")
                if middle:
                    found[teacher] = None
    return list(found)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def aliases_of(name: str) -> tuple[str, ...]:
    """All names of the teacher that `name` is one of, that of the newest release first; `(name,)` if it is unknown."""
    return next((row for row in ALIASES if _plain(name) in map(_plain, row)), (name,))


def match_names(asked: str | Iterable[str], available: Iterable[str], source: str = "the checkpoint") -> list[str]:
    """The checkpoint's own names of the teachers asked for, without repetition, in the order asked.

    In turn: the name itself, the same but for case and `-` or `_`, another name of the same teacher, and the start of
    exactly one name, up to a `-` or `_` (`dino` finds `dino_v3_7b`, but `siglip` is not `siglip2-g`).
    RadioCheckpointError lists what there is, for a name that finds nothing and for one that finds several.
    """
    available = list(available)
    matched: dict[str, None] = {}
    for name in [asked] if isinstance(asked, str) else asked:
        plain = _plain(name)
        same = {_plain(alias) for alias in aliases_of(name)}
        attempts = (
            [held for held in available if held == name],
            [held for held in available if _plain(held) == plain],
            [held for held in available if _plain(held) in same],
            [held for held in available if plain and _plain(held).startswith(f"{plain}_")],
        )
        found = next((attempt for attempt in attempts if attempt), [])
        if len(found) > 1:
            raise RadioCheckpointError(f"adaptor {name!r} may be any of {', '.join(found)} in {source}: name one")
        if not found and not available:
            raise RadioCheckpointError(
                f"adaptor {name!r} was asked for, but {source} holds no teacher heads. Recent safetensors releases "
                "come without them; the torch.hub file (.pth.tar) of the same version has them"
            )
        if not found:
            raise RadioCheckpointError(f"no adaptor {name!r} in {source}; it holds {', '.join(available)}")
        matched[found[0]] = None
    return list(matched)


def adaptor_specs(
    weights: Shapes,
    names: Iterable[str] | None = None,
    args: Any = None,
    adaptor_configs: Mapping[str, Mapping] | None = None,
    source: str = "the checkpoint",
) -> dict[str, dict]:
    """The `adaptors` field of `RadioEncoderConfig`, such that every weight of the named adaptors has its place.

    Args:
        weights: names as in our state dict (`adaptors.NAME.head_mlp...`) with shapes or tensors; others are ignored.
        names: exact names (see `match_names`), None: all that are held.
        args: training arguments of the checkpoint, a namespace or a mapping; of it are read `mlp_version`,
            `spatial_mlp_version`, `cls_token_per_teacher` and `teachers`.
        adaptor_configs: as in a remote-code `config.json`.
        source: file or folder, for the messages.

    Raises:
        RadioCheckpointError: a head that is absent, incomplete, of unknown make, or not what the config says.
    """
    held = held_adaptors(weights)
    names = held if names is None else list(names)
    args = dict(args) if isinstance(args, Mapping) else dict(vars(args)) if args is not None else {}
    specs = {}
    for name in names:
        where = f"adaptor {name!r} of {source}"
        if name not in held:
            raise RadioCheckpointError(f"no weights of {where}; it holds {', '.join(held) or 'no adaptors'}")
        if "." in name or hasattr(nn.ModuleDict, name):
            raise RadioCheckpointError(f"{where}: a torch module cannot have this name; open without this adaptor")
        index, teacher = _teacher(name, args)
        config = (adaptor_configs or {}).get(name) or {}
        spec: dict[str, Any] = {"head_idx": _head_idx(index, teacher, config, args, where)}
        for half, module in HALVES.items():
            prefix = f"{PREFIX}{name}.{module}."
            shapes = {key.removeprefix(prefix): _shape(w) for key, w in weights.items() if key.startswith(prefix)}
            if not shapes:
                raise RadioCheckpointError(f"{where} has no {half} head (no weight {prefix}*); it needs both heads")
            spec[half] = _head(shapes, f"the {half} head of {where}", prefix)
            _check_version(spec[half]["version"], half, teacher, args, f"the {half} head of {where}")
        spec["feature"]["upsample_factor"] = _upsample_factor(teacher, config, where)
        for half in HALVES:
            _check_config(spec[half], config.get(half) or {}, f"the {half} head of {where}")
        _check_complete(spec, {k: _shape(w) for k, w in weights.items() if k.startswith(f"{PREFIX}{name}.")}, where)
        specs[name] = spec
    return specs


def _shape(weight: Any) -> tuple[int, ...]:
    return tuple(getattr(weight, "shape", weight))


def _teacher(name: str, args: dict) -> tuple[int | None, Mapping]:
    """Position and entry of the teacher in the training arguments; `(None, {})` where they do not say."""
    for index, teacher in enumerate(args.get("teachers") or []):
        teacher = teacher if isinstance(teacher, Mapping) else vars(teacher)
        if teacher.get("name") == name:
            return index, teacher
    return None, {}


def _head_idx(index: int | None, teacher: Mapping, config: Mapping, args: dict, where: str) -> int:
    """Which prefix token feeds the summary head: what the remote-code config says, else the teacher's `token_slot`,
    else its position; the only one where teachers share a cls token, and the first of a DINOv2 student."""
    if is_dinov2(args.get("model")):
        return 0
    if config.get("head_idx") is not None:
        return int(config["head_idx"])
    if not args.get("cls_token_per_teacher", True):
        return 0
    slot = index if teacher.get("token_slot") is None else teacher["token_slot"]
    if slot is None:
        raise RadioCheckpointError(
            f"{where}: neither `adaptor_configs` (head_idx) nor the teachers in `args` say which cls token it reads"
        )
    return int(slot)


def _head(shapes: dict[str, tuple[int, ...]], what: str, prefix: str) -> dict[str, Any]:
    """Version and sizes of one head from the shapes of its weights, without their common prefix."""
    if "mlp.fc1.weight" in shapes:
        inner = {key.removeprefix("mlp."): shape for key, shape in shapes.items() if key.startswith("mlp.")}
        head = {**_head(inner, what, f"{prefix}mlp."), "version": "attn"}
        head["num_blocks"] = _count(shapes, "blocks.{}.norm1.weight")
        head["num_heads"] = ATTENTION_HEADS
        if head["input_dim"] % ATTENTION_HEADS:
            raise RadioCheckpointError(f"{what} is {head['input_dim']} wide, not a multiple of {ATTENTION_HEADS} heads")
        return head
    if "final.2.weight" in shapes:
        last, version, blocks = "final.2.weight", "v2", _count(shapes, "blocks.{}.0.weight")
    elif "fc2.weight" in shapes:
        last, version, blocks = "fc2.weight", "v1", _count(shapes, "inner.{}.weight", step=3)
    else:
        raise RadioCheckpointError(
            f"{what} is of no known version: there is no {prefix}final.2.weight (v2), {prefix}fc2.weight (v1) or "
            f"{prefix}mlp.fc1.weight (attention), only {', '.join(sorted(shapes)[:4])}"
        )
    for key in ("fc1.weight", last):
        if len(shapes.get(key, ())) != 2:
            raise RadioCheckpointError(f"{what}: {prefix}{key} should be a matrix, it is {shapes.get(key, 'absent')}")
    head = {
        "version": version,
        "input_dim": shapes["fc1.weight"][1],
        "hidden_dim": shapes["fc1.weight"][0],
        "output_dim": shapes[last][0],
        "num_inner": blocks,
    }
    if version == "v2":
        head["pre_norm"] = "pre_norm.0.weight" in shapes
    return head


def _count(shapes: dict[str, tuple[int, ...]], pattern: str, step: int = 1) -> int:
    count = 0
    while pattern.format(count * step) in shapes:
        count += 1
    return count


def _check_version(found: str, half: str, teacher: Mapping, args: dict, what: str) -> None:
    """The version that the weights show against what was said of it: of this teacher, else of all. For features the
    spatial option goes before the common one; whether the teacher's common or the general spatial one does is not
    documented, so either may be right."""
    said = [("its teacher's mlp_version", teacher.get("mlp_version"))]
    if half == "feature":
        said.append(("`args.spatial_mlp_version`", args.get("spatial_mlp_version")))
        if teacher.get("spatial_mlp_version"):
            said = [("its teacher's spatial_mlp_version", teacher["spatial_mlp_version"])]
    said = [(option, version) for option, version in said if version]
    said = said or [("`args.mlp_version`", args.get("mlp_version") or found)]
    if all(version != found for _, version in said):
        claims = " and ".join(f"{option} is {version!r}" for option, version in said)
        raise RadioCheckpointError(f"{what}: {claims}, but the weights are those of version {found!r}")


def _upsample_factor(teacher: Mapping, config: Mapping, where: str) -> int:
    from_teacher = teacher.get("fd_upsample_factor")
    from_config = (config.get("feature") or {}).get("upsample_factor")
    if from_teacher and from_config and int(from_teacher) != int(from_config):
        raise RadioCheckpointError(
            f"{where}: `adaptor_configs` says upsample_factor {from_config}, its teacher fd_upsample_factor "
            f"{from_teacher}"
        )
    return int(from_config or from_teacher or 1)


def _check_config(head: dict, said: Mapping, what: str) -> None:
    """`adaptor_configs` against the shapes."""
    for option in ("input_dim", "hidden_dim", "output_dim", "num_inner", "pre_norm"):
        if said.get(option) is not None and option in head and said[option] != head[option]:
            raise RadioCheckpointError(
                f"{what}: `adaptor_configs` says {option} {said[option]}, its weights say {head[option]}"
            )


def _check_complete(spec: dict, shapes: dict[str, tuple[int, ...]], where: str) -> None:
    """Every weight has its place in the module that the spec describes, and the module wants no other."""
    try:
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in TeacherAdaptor(spec).state_dict().items()}
    except ValueError as error:
        raise RadioCheckpointError(f"{where}: {error}") from error
    given = {key.removeprefix(PREFIX).split(".", 1)[1]: shape for key, shape in shapes.items()}
    problems = [f"{key} is missing" for key in wanted if key not in given]
    problems += [f"{key} has no place in a {spec['summary']['version']}/{spec['feature']['version']} adaptor"
                 for key in given if key not in wanted]  # fmt: skip
    problems += [f"{key} is {given[key]} where {wanted[key]} is needed" for key in wanted
                 if key in given and given[key] != wanted[key]]  # fmt: skip
    if problems:
        more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise RadioCheckpointError(f"{where} is not whole: {'; '.join(problems[:4])}{more}")
