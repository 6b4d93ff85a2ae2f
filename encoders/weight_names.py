"""The table of weight names: public RADIO checkpoints on one side, transformers' native names and ours on the other.

Public names come with two roots: `radio_model.` (Hugging Face) and `base_model.`, `_heads.`, ... (torch.hub). The
fused `qkv` becomes three weights, DINOv2's `w12` two: the first half is the gate. Names that are ours already stay.
What nothing uses has its reason in `LEFT_OUT`; every other name is unknown.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from encoders.errors import RadioCheckpointError
from encoders.tensor_files import Rows, TensorReader


class Source(NamedTuple):
    """Where a weight of ours comes from: a public weight, or the k-th of n equal blocks of its rows."""

    name: str
    part: tuple[int, int] | None = None


# public name -> ours; of blocks and layers, which have the same names in the backbone and in attention heads
BLOCK: tuple[tuple[str, str | tuple[str, ...]], ...] = (
    (r"(norm[12])\.(weight|bias)", r"\1.\2"),
    (r"attn\.qkv\.(weight|bias)", (r"attention.q_proj.\1", r"attention.k_proj.\1", r"attention.v_proj.\1")),
    (r"attention\.([qkvo])_proj\.(weight|bias)", r"attention.\1_proj.\2"),
    (r"attn\.proj\.(weight|bias)", r"attention.o_proj.\1"),
    (r"ls([12])\.(?:grandma|gamma)", r"layer_scale\1.lambda1"),  # HF renames gamma, hub files have either
    (r"layer_scale([12])\.lambda1", r"layer_scale\1.lambda1"),
    (r"mlp\.(fc[12])\.(weight|bias)", r"mlp.\1.\2"),
    (r"mlp\.w12\.(weight|bias)", (r"mlp.gate_proj.\1", r"mlp.up_proj.\1")),
    (r"mlp\.w3\.(weight|bias)", r"mlp.down_proj.\1"),
    (r"mlp\.(gate|up|down)_proj\.(weight|bias)", r"mlp.\1_proj.\2"),
)
# beside the blocks, below the backbone's root
BACKBONE = (
    (r"patch_generator\.embedder\.(weight|bias)", r"embeddings.patch_projection.\1"),
    (r"patch_generator\.video_embedder\.(weight|bias)", r"embeddings.video_patch_projection.\1"),
    (r"patch_generator\.pos_embed", r"embeddings.position_embedding"),
    (r"patch_generator\.cls_token\.token", r"embeddings.cls_register_token"),
    (r"patch_generator\.patch_normalizer\.(weight|bias)", r"embeddings.patch_norm.\1"),
    (r"norm\.(weight|bias)", r"final_norm.\1"),
)
# everything else; public and own names
WHOLE = (
    (r"(?:radio_model\.)?input_conditioner\.(norm_mean|norm_std)", r"input_conditioner.\1"),
    (r"(?:radio_model\.)?summary_idxs", r"summary_idxs"),
    (r"(?:radio_model\.|_)?feature_normalizer\.(mean|tx)", r"feature_normalizer.\1"),
    (
        r"(?:radio_model\.inter_feature_|_intermediate_feature_|intermediate_)normalizer\.(alphas|means|rotation)",
        r"intermediate_normalizer.\1",
    ),
    (r"(embeddings\.(?:(?:video_)?patch_projection|patch_norm)\.(?:weight|bias))", r"\1"),
    (r"(embeddings\.(?:position_embedding|cls_register_token))", r"\1"),
    (r"(final_norm\.(?:weight|bias))", r"\1"),
)
# MLP heads of adaptors: the same on both sides
HEAD_MLP = re.compile(
    r"(?:mlp\.)?(?:fc1|fc2|norm|inner\.\d+|blocks\.\d+\.\d+|final\.\d+|pre_norm\.\d+)\.(?:weight|bias)"
)
HEAD_BLOCK = re.compile(r"(blocks\.\d+)\.(.+)")
HEAD = re.compile(r"(?:radio_model\.)?adaptors\.([^.]+)\.(head_mlp|feat_mlp)\.(.+)")
HUB_HEAD = re.compile(r"(_heads|_feature_projections)\.([^.]+)\.(.+)")
ROOT = re.compile(r"(?:radio_model\.model|base_model)\.(?:inner\.)?(.+)")
LAYER = re.compile(r"blocks\.(\d+)\.(.+)")
OWN_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")

_ROOT = r"(?:radio_model\.model|base_model)\.(?:inner\.)?"
LEFT_OUT: tuple[tuple[str, str], ...] = (
    (rf"{_ROOT}(?:reg_token|register_tokens)", "registers of the plain ViT; RADIO's are in patch_generator.cls_token"),
    (rf"{_ROOT}cls_token", "token of the plain ViT; RADIO's are in patch_generator.cls_token"),
    (rf"{_ROOT}pos_embed", "positions of the plain ViT; RADIO's are in patch_generator.pos_embed"),
    (rf"{_ROOT}mask_token", "stands for masked patches in DINOv2's training; no patch is masked here"),
    (rf"{_ROOT}(?:head|head_drop|fc_norm)\..+", "classifier of the plain ViT; RADIO's features are taken before it"),
    (
        r"_?(?:optimizer|lr_scheduler|scheduler|loss_scaler|grad_scaler|amp_scaler|loss(?:es)?|loss_fns?|teachers?)\..+",
        "state of the training, not of the encoder",
    ),
)
SECOND_HEAD = "a later entry of the same teacher; the reference takes the first"


def _translate(table: Iterable[tuple[str, str | tuple[str, ...]]], name: str) -> tuple[str, ...] | None:
    """Our names for one public name, several when it is fused, None when the table does not know it."""
    for pattern, ours in table:
        match = re.fullmatch(pattern, name)
        if match:
            return tuple(match.expand(one) for one in ((ours,) if isinstance(ours, str) else ours))
    return None


def _head_inside(rest: str) -> tuple[str, ...] | None:
    """Names inside of one head: of an MLP they stay, of an attention block they are a layer's."""
    if HEAD_MLP.fullmatch(rest):
        return (rest,)
    block = HEAD_BLOCK.fullmatch(rest)
    inside = _translate(BLOCK, block[2]) if block else None
    return tuple(f"{block[1]}.{name}" for name in inside) if inside else None


def _teacher(key: str, teachers: Sequence[Mapping]) -> tuple[str, bool] | None:
    """Name of the teacher that a hub head belongs to, and whether it is that name's first entry.

    Hub files number heads by the position of the teacher in `args.teachers`, or name them."""
    names = [str(teacher.get("name", i)) for i, teacher in enumerate(teachers)]
    if key in names:
        return key, True
    if key.isdecimal():
        index = int(key)
        return (names[index], names.index(names[index]) == index) if index < len(names) else None
    return (key, True) if not names else None


def _our_names(name: str, teachers: Sequence[Mapping]) -> tuple[str, ...] | None:
    """Our names for one stored name, or None."""
    root = ROOT.fullmatch(name)
    if root:
        layer = LAYER.fullmatch(root[1])
        if not layer:
            return _translate(BACKBONE, root[1])
        inside = _translate(BLOCK, layer[2])
        return inside and tuple(f"encoder.layer.{layer[1]}.{one}" for one in inside)
    layer = OWN_LAYER.fullmatch(name)
    if layer:
        inside = _translate(BLOCK, layer[2])
        return inside and tuple(f"encoder.layer.{layer[1]}.{one}" for one in inside)
    head = HEAD.fullmatch(name)
    if head:
        inside = _head_inside(head[3])
        return inside and tuple(f"adaptors.{head[1]}.{head[2]}.{one}" for one in inside)
    head = HUB_HEAD.fullmatch(name)
    if head:
        teacher, inside = _teacher(head[2], teachers), _head_inside(head[3])
        kind = "head_mlp" if head[1] == "_heads" else "feat_mlp"
        return tuple(f"adaptors.{teacher[0]}.{kind}.{one}" for one in inside) if teacher and inside else None
    return _translate(WHOLE, name)


def left_out(keys: Iterable[str], teachers: Sequence[Mapping] = ()) -> dict[str, str]:
    """Stored names that nothing uses -> why."""
    reasons = {}
    for name in keys:
        head = HUB_HEAD.fullmatch(name)
        teacher = _teacher(head[2], teachers) if head else None
        if teacher and not teacher[1]:
            reasons[name] = SECOND_HEAD
        for pattern, reason in LEFT_OUT:
            if re.fullmatch(pattern, name):
                reasons[name] = reason
    return reasons


def rename(keys: Iterable[str], teachers: Sequence[Mapping] = ()) -> tuple[dict[str, Source], list[str]]:
    """`(plan, unknown)`: our names -> where they come from, and the stored names that the table does not know.

    Args:
        keys: stored names, public or ours, after folding (`encoders.spectral`).
        teachers: `args.teachers`, which hub files need to name their heads.

    Names in `left_out(keys, teachers)` are in neither. Raises `RadioCheckpointError` when two stored weights would be
    the same weight of ours.
    """
    keys = list(keys)
    ignored = left_out(keys, teachers)
    plan: dict[str, Source] = {}
    unknown = []
    for name in keys:
        if name in ignored:
            continue
        ours = _our_names(name, teachers)
        if ours is None:
            unknown.append(name)
            continue
        for k, one in enumerate(ours):
            if one in plan:
                raise RadioCheckpointError(f"'{plan[one].name}' and '{name}' are both the weight '{one}'")
            plan[one] = Source(name, (k, len(ours)) if len(ours) > 1 else None)
    return plan, unknown


class RenamedTensors(TensorReader):
    """Stored tensors under our names, parts of fused weights read by themselves.

    Raises:
        RadioCheckpointError: the rows of a fused weight do not divide; names it.
    """

    def __init__(self, tensors: TensorReader, plan: Mapping[str, Source]) -> None:
        self._tensors, self._plan = tensors, dict(plan)
        for source in self._plan.values():
            shape = tensors.shape(source.name)
            if source.part and (not shape or shape[0] % source.part[1]):
                raise RadioCheckpointError(
                    f"'{source.name}' of shape {list(shape)} does not divide into {source.part[1]} equal parts"
                )

    def source(self, name: str) -> Source:
        """Where one of our names comes from, for messages."""
        return self._plan[name]

    def keys(self) -> list[str]:
        return list(self._plan)

    def _rows(self, name: str) -> Rows | None:
        """Rows of the stored weight that are this one; None: all."""
        stored, part = self._plan[name]
        if part is None:
            return None
        step = self._tensors.shape(stored)[0] // part[1]
        return part[0] * step, (part[0] + 1) * step

    def shape(self, name: str) -> tuple[int, ...]:
        stored, rows = self._plan[name].name, self._rows(name)
        shape = self._tensors.shape(stored)
        return shape if rows is None else (rows[1] - rows[0], *shape[1:])

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors.dtype(self._plan[name].name)

    def read(self, name: str, rows: Rows | None = None) -> torch.Tensor:
        own = self._rows(name)
        if own is not None and rows is not None:
            rows = (own[0] + rows[0], own[0] + rows[1])
        return self._tensors.read(self._plan[name].name, own if rows is None else rows)


# ours -> public, Hugging Face root: the way back
_BACK_BLOCK = (
    (r"(norm[12])\.(weight|bias)", r"\1.\2"),
    (r"attention\.(q|k|v)_proj\.(weight|bias)", r"attn.qkv.\2"),
    (r"attention\.o_proj\.(weight|bias)", r"attn.proj.\1"),
    (r"mlp\.(fc[12])\.(weight|bias)", r"mlp.\1.\2"),
    (r"mlp\.(gate|up)_proj\.(weight|bias)", r"mlp.w12.\2"),
    (r"mlp\.down_proj\.(weight|bias)", r"mlp.w3.\1"),
)
_BACK_EMBEDDINGS = (
    (r"embeddings\.patch_projection\.(weight|bias)", r"patch_generator.embedder.\1"),
    (r"embeddings\.video_patch_projection\.(weight|bias)", r"patch_generator.video_embedder.\1"),
    (r"embeddings\.position_embedding", r"patch_generator.pos_embed"),
    (r"embeddings\.cls_register_token", r"patch_generator.cls_token.token"),
    (r"embeddings\.patch_norm\.(weight|bias)", r"patch_generator.patch_normalizer.\1"),
    (r"final_norm\.(weight|bias)", r"norm.\1"),
)
_BACK_WHOLE = (
    (r"((?:input_conditioner|feature_normalizer)\..+|summary_idxs)", r"radio_model.\1"),
    (r"intermediate_normalizer\.(.+)", r"radio_model.inter_feature_normalizer.\1"),
)
_SCALE = re.compile(r"layer_scale([12])\.lambda1")


def _public_block(inside: str, scale: str) -> str | None:
    """Public name inside of a block; layer scales end in `scale`."""
    match = _SCALE.fullmatch(inside)
    if match:
        return f"ls{match[1]}.{scale}"
    found = _translate(_BACK_BLOCK, inside)
    return found[0] if found else None


def _public_name(name: str, root: str) -> str | None:
    """Public name of one of ours; the parts of a fused weight share theirs."""
    layer = OWN_LAYER.fullmatch(name)
    if layer:
        inside = _public_block(layer[2], "grandma")
        return inside and f"{root}blocks.{layer[1]}.{inside}"
    head = HEAD.fullmatch(name)
    if head:
        block = HEAD_BLOCK.fullmatch(head[3])
        inside = head[3] if HEAD_MLP.fullmatch(head[3]) else block and _public_block(block[2], "gamma")
        if inside and inside != head[3]:
            inside = f"{block[1]}.{inside}"
        return inside and f"radio_model.adaptors.{head[1]}.{head[2]}.{inside}"
    found = _translate(_BACK_EMBEDDINGS, name)
    if found:
        return root + found[0]
    found = _translate(_BACK_WHOLE, name)
    return found[0] if found else None


def public_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of ours under the public Hugging Face names, fused weights joined.

    With gated MLPs the names are those of the DINOv2 variant, `radio_model.model.inner.*`. Raises `ValueError` for a
    name that has no public counterpart.
    """
    gated = any(".mlp.gate_proj." in name for name in state)
    root = "radio_model.model.inner." if gated else "radio_model.model."
    public: dict[str, torch.Tensor] = {}
    for name in state:
        stored = _public_name(name, root)
        if stored is None:
            raise ValueError(f"'{name}' has no public name")
        if stored in public:
            continue
        ours = _our_names(stored, ())
        parts = [state[one] for one in ours]
        public[stored] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return public
