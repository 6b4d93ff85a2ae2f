"""`RadioEncoder`: any RADIO checkpoint, opened in full or refused with the reason.

    encoder = RadioEncoder.from_pretrained("nvidia/C-RADIOv4-H", adaptors=["siglip2-g"], vitdet_window_size=16)
    out = encoder(pixel_values)      # out.summary, out.features, out.adaptors["siglip2-g"].features
"""

import json
import logging
from pathlib import Path

import torch
from transformers.models.radio.modeling_radio import RadioModel

from encoders.adaptor_specs import match_names
from encoders.checkpoint_loading import LoadReport, build_encoder
from encoders.checkpoint_sources import RadioCheckpoint, open_checkpoint
from encoders.intermediates import take_indices
from encoders.radio_vision import RadioEncoderOutput, RadioVisionModel
from encoders.versions import RELEASES, find_release

logger = logging.getLogger(__name__)

LOOKS_LIKE_BYTES = 32.0  # no normalised picture gets there
HUB_OPTIONS = (
    "cache_dir",
    "filename",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
FROM_AUTO = ("adapter_kwargs", "code_revision")  # what the Auto classes pass along whatever the model is


class RadioEncoder(RadioVisionModel):
    """A RADIO encoder with its checkpoint's history in `report`; see `RadioVisionModel` for what it computes."""

    report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        adaptors: list[str] | str | None = None,
        vitdet_window_size: int | None = None,
        vitdet_num_global: int | None = None,
        vitdet_num_windowed: int | None = None,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        weights: bool = True,
        **hub,
    ) -> "RadioEncoder":
        """Open a checkpoint, in evaluation mode.

        Args:
            source: a folder (native, ours, of the remote-code kind), a torch.hub file, a hub id, or a release's name.
            adaptors: teacher heads to load, names as in the checkpoint or their beginnings ("siglip2-g", "dino_v3");
                None: those that the folder was saved with; []: none.
            vitdet_window_size: side of an attention window in patches; None: as the folder says; 0: no windows.
            vitdet_num_global, vitdet_num_windowed: instead of the release's own schedule.
            dtype: of the weights; None: as the checkpoint says. Conditioning, positions and normalizers stay float32.
            attn_implementation: "sdpa" (default), "eager", "flash_attention_2".
            weights: False for a model on the meta device: everything is checked, no weight is read.
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, as everywhere in transformers;
                `filename`: one file of the repository or folder, such as the torch.hub file beside the safetensors.

        Raises:
            RadioCheckpointError: naming what is missing, unknown, contradictory, damaged or unsupported.
        """
        for ignored in ("config", "trust_remote_code", "torch_dtype"):  # what the Auto classes pass along
            value = hub.pop(ignored, None)
            dtype = dtype if ignored != "torch_dtype" else dtype or value
        unknown = sorted(name for name in hub if name not in (*HUB_OPTIONS, *FROM_AUTO) and not name.startswith("_"))
        if unknown:
            known = ", ".join(HUB_OPTIONS)
            raise TypeError(f"from_pretrained has no option {', '.join(unknown)}; those of the hub are {known}")
        hub = {name: value for name, value in hub.items() if name in HUB_OPTIONS}
        checkpoint = _with_heads(open_checkpoint(str(source), **hub), str(source), adaptors, hub)
        asked = [adaptors] if isinstance(adaptors, str) else adaptors
        windows = (vitdet_window_size, vitdet_num_global, vitdet_num_windowed)
        model, report = build_encoder(cls, checkpoint, str(source), asked, windows, dtype, attn_implementation, weights)
        model.report = report
        return model

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """As in transformers, under the names of the native `RadioModel`, which opens a plain backbone alone."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / "config.json"
        if self.config.is_native and kwargs.get("is_main_process", True):
            values = {**json.loads(path.read_text(encoding="utf-8")), "architectures": [RadioModel.__name__]}
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def forward(self, *args, **kwargs) -> RadioEncoderOutput:
        """As `RadioVisionModel.forward`; in evaluation, features that are not finite are an error."""
        out = super().forward(*args, **kwargs)
        self._check(args[0] if args else kwargs.get("pixel_values"), getattr(out, "features", None))
        return out

    def forward_intermediates(self, x: torch.Tensor, *args, **kwargs):
        """As `RadioVisionModel.forward_intermediates`, with the same check."""
        out = super().forward_intermediates(x, *args, **kwargs)
        indices = kwargs.get("indices", args[0] if args else None)
        entries = out if isinstance(out, list) else out[1]
        for index, entry in zip(take_indices(indices, self.config.num_hidden_layers), entries):
            self._check(x, entry[1] if isinstance(entry, tuple) else entry, f"features of block {index}")
        return out

    def _check(
        self, pixels: torch.Tensor | None, features: torch.Tensor | None, what: str = "features"
    ) -> None:
        """Raises ValueError for features that are not finite; warns of pixels that look like 0..255."""
        if self.training or features is None or torch.compiler.is_compiling():
            return
        bad = features.numel() - int(torch.isfinite(features).sum())
        if bad:
            clean = pixels is None or bool(torch.isfinite(pixels.float()).all())
            cause = f"the weights and their dtype {features.dtype}" if clean else "pixel_values: NaN or Inf in them"
            raise ValueError(f"{what}: {bad:,} of {features.numel():,} values are NaN or infinite; look at {cause}")
        if pixels is not None and pixels.is_floating_point() and pixels.numel() and pixels.max() > LOOKS_LIKE_BYTES:
            logger.warning("pixel_values reach %.0f: values in [0, 1] are expected, divide by 255", pixels.max())

    def freeze(self) -> "RadioEncoder":
        """No parameter trains, and positions stay those of evaluation, also when a parent switches to training."""
        self.embeddings.cpe_training = False
        return self.requires_grad_(False).eval()

    def load_text_tower(self, adaptor: str, source: str | None = None):
        """The text side of a teacher head (siglip2, clip), from the local cache or `source`: a `TextTower`."""
        from encoders.text_towers import load_text_tower

        (name,) = match_names(adaptor, self.adaptors, "this encoder (adaptors=[...] of from_pretrained loads more)")
        return load_text_tower(name, source)


def _with_heads(
    checkpoint: RadioCheckpoint, source: str, adaptors: list[str] | str | None, hub: dict
) -> RadioCheckpoint:
    """A release keeps its backbone as safetensors and its teacher heads in a torch.hub file beside it: that file,
    where heads are asked for and the weights have none."""
    release = RELEASES.get(find_release(source))
    remote = not Path(source).expanduser().exists() and "filename" not in hub
    held = any("adaptors." in name for name in checkpoint.tensors)
    if held or not (adaptors and remote and release and release.file):
        return checkpoint
    return open_checkpoint(source, filename=release.file, **hub)
