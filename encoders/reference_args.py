"""From the `args` of a RADIO checkpoint and the shapes of its weights to a `RadioEncoderConfig`.

Sizes come from the weights wherever they can; `args` decides what shapes cannot tell (heads, class tokens, what the
summary is made of). Where both speak and differ, nothing is built. The rules are those of NVlabs/RADIO (`hubconf.py`,
`radio_model.py`, `enable_cpe_support.py`).
"""

import re
from collections.abc import Mapping
from typing import Any

from encoders.errors import RadioCheckpointError
from encoders.radio_config import RadioEncoderConfig

Shapes = Mapping[str, tuple[int, ...]]

# timm and DINOv2 names -> (width, blocks, heads); RADIO's `vit_giant_patch16` is 1536 wide, timm's giant 1408
BACKBONES: dict[str, tuple[int, int, int]] = {
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
    "vit_so400m": (1152, 27, 16),
    "vit_huge": (1280, 32, 16),
    "vit_giant": (1536, 40, 24),
    "vit_bigg": (1664, 48, 16),
    "dino_v2_l": (1024, 24, 16),
    "dinov2_vitl14": (1024, 24, 16),
    "dino_v2_g": (1536, 40, 24),
    "dinov2_vitg14": (1536, 40, 24),
}
REFUSED = (
    (r"eradio|fastervit", "E-RADIO is not supported yet: a convolution and attention hybrid without class tokens"),
    (r"radio1d|_1d", "RADIO1D is not supported yet: it compresses patches to another length and decodes them again"),
    (r"xpos|hybrid|paligemma|mlpnorm", "this backbone is not supported yet; plain and DINOv2-style ViTs are"),
)


def refuse_unsupported(model: str | None, origin: str) -> None:
    """Raises for backbones that would need another architecture."""
    for pattern, reason in REFUSED:
        if model and re.search(pattern, model.lower()):
            raise RadioCheckpointError(f"{origin}: {reason} (model {model!r})")


def is_dinov2(model: str | None) -> bool:
    return bool(model) and model.lower().startswith("dino")


def token_layout(args: Mapping[str, Any]) -> tuple[int, int]:
    """How many class and register tokens stand before the patches.

    One class token per distinct teacher, or one; `cpe_num_registers`, else what fills up `register_multiple` (a full
    group more when nothing is missing). Where a teacher's `token_slot` points into the registers, those up to it count
    as class tokens; a teacher listed again (trained at another resolution) has the token of its first entry.
    """
    teachers = (args.get("teachers") or []) if args.get("cls_token_per_teacher", True) else []
    classes = len({teacher["name"] for teacher in teachers}) or 1
    multiple = args.get("register_multiple")
    registers = int(args.get("cpe_num_registers") or (multiple - classes % multiple if multiple else 0))
    first: dict[str, int] = {}
    for index, teacher in enumerate(teachers):
        slot = teacher.get("token_slot")
        first.setdefault(teacher["name"], index if slot is None else int(slot))
    widened = max([classes, *(slot + 1 for slot in first.values())])
    return widened, classes + registers - widened


def summary_indices(args: Mapping[str, Any], stored: list[int] | None, hub: bool) -> list[int]:
    """Class tokens that make the summary: those stored with the weights, else by the rule of the checkpoint's kind.

    torch.hub: the first token of every distinct name with `use_summary`; the remote code: every such teacher.
    """
    if is_dinov2(args.get("model")):
        return [0]  # the reference hands on the first token only, whatever is stored
    if stored is not None:
        return stored
    teachers = args.get("teachers") or []
    used = [index for index, teacher in enumerate(teachers) if teacher.get("use_summary", True)]
    if not hub:
        return used
    if not args.get("cls_token_per_teacher", True):
        return [0]
    first: dict[str, int] = {}
    for index in used:
        first.setdefault(teachers[index]["name"], index)
    return sorted(first.values())


def usual_sizes(args: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Width, blocks and heads that the backbone's name stands for; None where the name is not known."""
    model = str(args.get("model") or "").lower()
    return next((sizes for name, sizes in BACKBONES.items() if model.startswith(name)), (None, None, None))


def attention_heads(args: Mapping[str, Any], width: int, origin: str) -> int:
    """From `model_kwargs`, else by the name of the backbone."""
    given = (args.get("model_kwargs") or {}).get("num_heads") or usual_sizes(args)[2]
    if given:
        return int(given)
    raise RadioCheckpointError(
        f"{origin}: the number of attention heads of backbone {args.get('model')!r} (width {width}) is not known; "
        f"known: {', '.join(BACKBONES)}; or name it in args['model_kwargs']['num_heads']"
    )


def _agree(origin: str, what: str, weights: int, said: int | None, where: str) -> None:
    if said is not None and int(said) != weights:
        raise RadioCheckpointError(f"{origin}: the weights have {what} {weights}, but {where} says {said}")


def config_from_args(
    args: Mapping[str, Any],
    shapes: Shapes,
    origin: str,
    hub: bool,
    said: Mapping[str, Any] | None = None,
    stored_summary: list[int] | None = None,
) -> RadioEncoderConfig:
    """The configuration of a backbone, without adaptors and windows.

    Args:
        args: training arguments of the checkpoint.
        shapes: of its weights, under our names.
        hub: whether it is a torch.hub file (their rule of the summary differs from the remote code's).
        said: what `config.json` says beside `args` (`patch_size` is compared).
        stored_summary: the `summary_idxs` buffer, where there is one.

    Raises:
        RadioCheckpointError: for an unsupported backbone, a missing weight, or weights and `args` that differ.
    """
    refuse_unsupported(args.get("model"), origin)
    kwargs = args.get("model_kwargs") or {}
    for name in ("position_embedding", "cls_register_token", "patch_projection.weight"):
        if f"embeddings.{name}" not in shapes:
            hint = " (RADIO without cropped positions, `cpe_max_size: null`, is not supported yet)"
            hint = hint if args.get("cpe_max_size", 0) is None else ""
            raise RadioCheckpointError(f"{origin}: the weight for embeddings.{name} is missing{hint}")
    width, inputs = shapes["embeddings.patch_projection.weight"]
    channels = args.get("in_chans") or (args.get("input_size") or [3])[0]
    patch = round((inputs / channels) ** 0.5)
    if patch * patch * channels != inputs:
        raise RadioCheckpointError(f"{origin}: patches of {inputs} values are no squares of {channels} channels")
    _agree(origin, "patch size", patch, (said or {}).get("patch_size"), "config.json")
    usual_width, usual_depth, _ = usual_sizes(args)
    named = f"args (model {args.get('model')!r})"
    _agree(origin, "width", width, kwargs.get("embed_dim", usual_width), named)
    for name in ("position_embedding", "cls_register_token"):
        _agree(origin, f"{name} of width", shapes[f"embeddings.{name}"][-1], width, "the patch projection")

    rows = round(shapes["embeddings.position_embedding"][-2] ** 0.5)
    if rows * rows != shapes["embeddings.position_embedding"][-2]:
        raise RadioCheckpointError(f"{origin}: {shapes['embeddings.position_embedding'][-2]} positions are no square")
    if args.get("cpe_max_size"):
        _agree(origin, "position rows", rows, round(args["cpe_max_size"] / patch), "args['cpe_max_size'] / patch size")
    depth = 1 + max((int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layer.")), default=-1)
    if not depth:
        raise RadioCheckpointError(f"{origin}: it holds no transformer blocks")
    _agree(origin, "depth", depth, kwargs.get("depth", usual_depth), named)

    tokens = shapes["embeddings.cls_register_token"][0]
    classes, registers = token_layout(args)
    if classes + registers != tokens or registers < 0:
        raise RadioCheckpointError(
            f"{origin}: the weights have {tokens} class and register tokens, but args describe {classes} + {registers} "
            "(teachers, cls_token_per_teacher, register_multiple, cpe_num_registers)"
        )
    first = "encoder.layer.0."
    swiglu = f"{first}mlp.gate_proj.weight" in shapes
    hidden = shapes[f"{first}mlp.{'gate_proj' if swiglu else 'fc1'}.weight"][0]
    values = dict(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=attention_heads(args, width, origin),
        mlp_ratio=_mlp_ratio(hidden, width, swiglu),
        use_swiglu_ffn=swiglu,
        qkv_bias=f"{first}attention.q_proj.bias" in shapes,
        num_channels=channels,
        patch_size=patch,
        max_img_size=rows * patch,
        image_size=(said or {}).get("image_size") or rows * patch,
        num_cls_tokens=classes,
        num_registers=registers,
        summary_idxs=summary_indices(args, stored_summary, hub),
        cpe_training=True,
        patch_bias="embeddings.patch_projection.bias" in shapes,
        patch_norm="embeddings.patch_norm.weight" in shapes,
        # the reference replaces a timm model's norm unless told otherwise, and leaves that of the DINOv2 student
        final_norm="final_norm.weight" in shapes and bool(args.get("model_norm") or is_dinov2(args.get("model"))),
        feature_normalizer="feature_normalizer.mean" in shapes,
        intermediate_normalizer=(
            {"rot_per_layer": len(shapes["intermediate_normalizer.rotation"]) == 3}
            if "intermediate_normalizer.rotation" in shapes
            else None
        ),
        video_temporal_patch_size=_frames(shapes, inputs),
    )

    try:
        return RadioEncoderConfig(**values)
    except ValueError as error:
        raise RadioCheckpointError(f"{origin}: {error}") from error


def _mlp_ratio(hidden: int, width: int, swiglu: bool) -> float:
    """The ratio from which `RadioConfig` computes exactly this hidden width: it multiplies and truncates, and takes two
    thirds, rounded up to a multiple of 8, for SwiGLU."""
    wanted = hidden * 3 / 2 if swiglu else hidden
    ratio = wanted / width
    while int(width * ratio) < int(wanted):
        ratio += 1e-12 * max(ratio, 1)
    return ratio


def _frames(shapes: Shapes, inputs: int) -> int | None:
    """Frames per tubelet, where there is a projection for videos."""
    video = shapes.get("embeddings.video_patch_projection.weight")
    return video[1] // inputs if video else None
