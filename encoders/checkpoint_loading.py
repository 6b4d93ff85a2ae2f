"""From an opened checkpoint to a model with its weights, or to the reason why not.

The other files of loading each know one thing (how to read a checkpoint, what its weights are called, what its `args`
mean); here they meet. Every weight is used, or listed with a reason, or named in the error; nothing is read before
everything fits.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from encoders.adaptor_specs import adaptor_specs, held_adaptors, match_names
from encoders.checkpoint_sources import RadioCheckpoint
from encoders.errors import RadioCheckpointError
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from encoders.reference_args import config_from_args, is_dinov2, refuse_unsupported
from encoders.spectral import eps_of, fold
from encoders.versions import RELEASES, find_release
from encoders.weight_names import RenamedTensors, left_out, rename

logger = logging.getLogger(__name__)

# What stays float32 in a half-precision encoder: conditioning, positions, normalizers.
FLOAT32_PARTS = (
    "input_conditioner.",
    "embeddings.position_embedding",
    "feature_normalizer.",
    "intermediate_normalizer.",
)


@dataclass
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        origin: the file, folder or id. kind: "native", "ours", "remote_code" or "hub". release: its name, if known.
        used: number of weights in the model.
        left_out: weight of the checkpoint → why it is not in the model.
        heads_left_out: teachers whose heads are among these.
        notes: anything else worth knowing.
    """

    origin: str
    kind: str
    release: str | None
    used: int
    left_out: dict[str, str] = field(default_factory=dict)
    heads_left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.origin} ({self.kind}, {self.release or 'release not known'}): {self.used} weights used"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines.append(f"left out: {shown}: {reason}")
        return "\n".join([*lines, *self.notes])


def build_encoder(
    cls: type[RadioVisionModel],
    checkpoint: RadioCheckpoint,
    source: str,
    asked: list[str] | None,
    windows: tuple[int | None, int | None, int | None],
    dtype: torch.dtype | str | None,
    attn_implementation: str | None,
    read: bool = True,
) -> tuple[RadioVisionModel, LoadReport]:
    """Plan everything, refuse what does not fit, and only then read the weights (or not: `read=False` gives the model
    on the meta device)."""
    args, origin = checkpoint.args, checkpoint.origin
    refuse_unsupported(args.get("model"), origin)
    release = find_release(checkpoint.config.get("version"), source, checkpoint.name)
    if release and RELEASES[release].unsupported:
        raise RadioCheckpointError(f"{origin}: {release} is not supported yet: {RELEASES[release].unsupported}")
    teachers = args.get("teachers") or ()
    try:
        folded = fold(checkpoint.tensors, eps_of(args.get("spectral_reparam")))
        plan, unknown = rename(folded, teachers)
    except RadioCheckpointError as error:
        raise RadioCheckpointError(f"{origin}: {error}") from None
    if unknown:
        raise RadioCheckpointError(
            f"{origin}: {len(unknown)} weights are of no RADIO that can be opened: "
            f"{', '.join(sorted(unknown)[:5])}{' ...' * (len(unknown) > 5)}"
        )
    reasons = dict(left_out(folded, teachers))
    if is_dinov2(args.get("model")) and "summary_idxs" in plan:
        reasons[plan.pop("summary_idxs").name] = "the DINOv2 student's summary is its first token"
    try:
        weights = RenamedTensors(folded, plan)
    except RadioCheckpointError as error:
        raise RadioCheckpointError(f"{origin}: {error}") from None
    shapes = {name: weights.shape(name) for name in weights}
    config = _backbone_config(checkpoint, shapes, weights)
    notes: list[str] = []
    values = {key: value for key, value in config.to_dict().items() if key != "model_type"}
    values["adaptors"] = _adaptors(checkpoint, shapes, asked, config)
    values.update(_windows(config, release, source, windows, notes))
    values["version"] = release or config.version
    known = RELEASES.get(release)
    values["max_resolution"] = values.get("max_resolution") or (known and known.max_resolution)
    values["preferred_resolution"] = values.get("preferred_resolution") or (known and [known.preferred_resolution] * 2)
    try:
        config = RadioEncoderConfig(**values)
    except ValueError as error:
        raise RadioCheckpointError(f"{origin}: {error}") from error
    config._attn_implementation = attn_implementation or "sdpa"

    with torch.device("meta"):
        model = cls(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    fixed = _unstored(config, expected, weights)
    _check_fit(origin, {name: shape for name, shape in expected.items() if name not in fixed}, shapes)
    reasons |= {weights.source(name).name: _why_unused(name) for name in weights if name not in expected}
    heads = [name for name in held_adaptors(shapes) if name not in (config.adaptors or {})]
    report = LoadReport(origin, checkpoint.kind, release, len(expected), reasons, heads, notes)
    model.eval()
    if not read:
        return model, report
    dtype = _dtype(dtype, args, weights)
    fixed = {name: value.to(dtype) if ".layer_scale" in name else value for name, value in fixed.items()}
    state = _read(origin, expected, weights, dtype) | fixed
    model.load_state_dict(state, strict=True, assign=True)
    for note in notes:
        logger.warning("%s: %s", origin, note)
    return model, report


def _backbone_config(
    checkpoint: RadioCheckpoint, shapes: Mapping[str, tuple], weights: RenamedTensors
) -> RadioEncoderConfig:
    """As the folder says (native, ours), or worked out from `args` and shapes."""
    if checkpoint.kind in ("native", "ours"):
        values = {k: v for k, v in checkpoint.config.items() if k not in ("model_type", "architectures", "auto_map")}
        values.setdefault("cpe_training", True)
        try:
            return RadioEncoderConfig(**values)
        except (TypeError, ValueError) as error:
            raise RadioCheckpointError(f"{checkpoint.origin}: config.json: {error}") from error
    stored = weights.read("summary_idxs").tolist() if "summary_idxs" in weights else None
    said = checkpoint.config
    config = config_from_args(
        checkpoint.args, shapes, checkpoint.origin, checkpoint.kind == "hub", said, stored_summary=stored
    )
    for part, weight in (
        ("feature_normalizer_config", "feature_normalizer.mean"),
        ("inter_feature_normalizer_config", "intermediate_normalizer.means"),
    ):
        if said.get(part) and weight not in shapes:
            raise RadioCheckpointError(f"{checkpoint.origin}: config.json has a {part}, but {weight} is missing")
    for name in ("norm_mean", "norm_std"):
        if f"input_conditioner.{name}" in weights:
            setattr(config, name, weights.read(f"input_conditioner.{name}").flatten().tolist())
    config.version = said.get("version")
    config.max_resolution = said.get("max_resolution")
    preferred = said.get("preferred_resolution")
    config.preferred_resolution = list(preferred) if preferred else None
    config.vitdet_window_size = said.get("vitdet_window_size")
    return config


def _adaptors(checkpoint: RadioCheckpoint, shapes, asked: list[str] | None, config: RadioEncoderConfig) -> dict | None:
    """Specs of the heads to load: those asked for, else those that the folder names."""
    held = held_adaptors(shapes)
    if asked is None:
        asked = config.adaptors if checkpoint.kind == "ours" else checkpoint.config.get("adaptor_names")
        asked = [asked] if isinstance(asked, str) else list(asked or ())
    chosen = match_names(asked, held, checkpoint.origin)
    if checkpoint.kind == "ours":
        return {name: config.adaptors[name] for name in chosen} or None
    configs = checkpoint.config.get("adaptor_configs")
    return adaptor_specs(shapes, chosen, checkpoint.args, configs, checkpoint.origin) or None


def _windows(config: RadioEncoderConfig, release: str | None, source: str, asked: tuple, notes: list[str]) -> dict:
    """Window and schedule: as asked for, else as the folder says; the schedule else that of the release."""
    size, num_global, num_windowed = asked
    size = (config.vitdet_window_size if size is None else size) or None  # 0: without, whatever the folder says
    scheduled = num_global is not None or num_windowed is not None
    if size is None and scheduled:
        given = "vitdet_num_global" if num_global is not None else "vitdet_num_windowed"
        raise ValueError(f"{given} without vitdet_window_size: give the side of a window in patches too")
    known = RELEASES.get(release)
    if not scheduled:
        num_global, num_windowed = config.vitdet_num_global, config.vitdet_num_windowed
        if not (num_global or num_windowed) and known:
            num_global, num_windowed = known.vitdet_num_global, known.vitdet_num_windowed
    if size and known and not known.vitdet and not scheduled:
        said = f"{release} was not trained with ViTDet windows, so vitdet_window_size={size} would degrade its features"
        if source.lower() in (release, (known.hub_id or "").lower()):
            raise RadioCheckpointError(f"{said}; leave it out, or name a schedule to insist (vitdet_num_global=...)")
        notes.append(said)
    return {"vitdet_window_size": size, "vitdet_num_global": num_global, "vitdet_num_windowed": num_windowed}


def _unstored(
    config: RadioEncoderConfig, expected: Mapping[str, tuple], weights: RenamedTensors
) -> dict[str, torch.Tensor]:
    """What a checkpoint may lack because it is fixed or the identity: layer scale (all of it or none), conditioning
    constants, indices."""
    known: dict[str, torch.Tensor] = {
        "summary_idxs": torch.tensor(config.summary_idxs, dtype=torch.long),
        "input_conditioner.norm_mean": torch.tensor(config.norm_mean).view(-1, 1, 1),
        "input_conditioner.norm_std": torch.tensor(config.norm_std).view(-1, 1, 1),
    }
    scales = [name for name in expected if name.startswith("encoder.layer.") and ".layer_scale" in name]
    if not any(name in weights for name in scales):
        known |= {name: torch.ones(expected[name]) for name in scales}
    return {name: value for name, value in known.items() if name in expected and name not in weights}


def _check_fit(origin: str, expected: Mapping[str, tuple], shapes: Mapping[str, tuple]) -> None:
    """Raises unless every weight of the model is there in its shape."""
    missing = sorted(set(expected) - set(shapes))
    if missing:
        more = " ..." * (len(missing) > 5)
        raise RadioCheckpointError(f"{origin}: {len(missing)} weights are missing: {', '.join(missing[:5])}{more}")
    wrong = [f"{name} is {shapes[name]}, expected {shape}" for name, shape in expected.items() if shapes[name] != shape]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" * (len(wrong) > 3)
        raise RadioCheckpointError(f"{origin}: weights of another size: {'; '.join(wrong[:3])}{more}")


def _why_unused(name: str) -> str:
    if name.startswith("adaptors."):
        head = name.split(".")[1]
        return f"head of teacher {head}, not asked for; adaptors=[{head!r}] loads it"
    if name.startswith("final_norm."):
        return "the training ran without it (args['model_norm'] is not set)"
    return "the model described by config.json has no place for it"


def _dtype(asked: torch.dtype | str | None, args: Mapping[str, Any], weights: RenamedTensors) -> torch.dtype:
    """As asked for; else that of `args`; else that of the stored blocks."""
    if isinstance(asked, str) and asked != "auto":
        name, asked = asked, getattr(torch, asked.removeprefix("torch."), None)
        if not isinstance(asked, torch.dtype):
            raise ValueError(f"dtype={name!r} is none of torch's; float32, bfloat16 and float16 are")
    if isinstance(asked, torch.dtype):
        return asked
    said = args.get("dtype")
    if isinstance(said, str):
        said = getattr(torch, said.removeprefix("torch."), None)
    return said if isinstance(said, torch.dtype) else weights.dtype("encoder.layer.0.norm1.weight")


def _read(origin: str, expected: Mapping[str, tuple], weights: RenamedTensors, dtype: torch.dtype) -> dict:
    """The weights of the model, one at a time, so that little more than their own memory is needed."""
    state = {}
    for name in expected:
        if name not in weights:
            continue
        tensor = weights.read(name)
        if tensor.is_floating_point():
            if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
                raise RadioCheckpointError(f"{origin}: {weights.source(name).name} holds NaN or Inf")
            tensor = tensor.to(torch.float32 if name.startswith(FLOAT32_PARTS) else dtype)
        state[name] = tensor
    return state
