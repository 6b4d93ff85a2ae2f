"""`RadioEncoder`: any RADIO checkpoint, opened in full or refused with the reason.

    encoder = RadioEncoder.from_pretrained("nvidia/C-RADIOv4-H", adaptors=["siglip2-g"], vitdet_window_size=16)
    out = encoder(pixel_values)      # out.summary, out.features, out.adaptors["siglip2-g"].features
"""

import json
from pathlib import Path

import torch
from transformers.models.radio.modeling_radio import RadioModel

from encoders.checkpoint_loading import LoadReport, build_encoder
from encoders.checkpoint_sources import RadioCheckpoint, open_checkpoint
from encoders.errors import RadioCheckpointError
from encoders.radio_vision import RadioEncoderOutput, RadioVisionModel
from encoders.versions import RELEASES, find_release


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
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, as everywhere in transformers.

        Raises:
            RadioCheckpointError: naming what is missing, unknown, contradictory, damaged or unsupported.
        """
        for ignored in ("config", "trust_remote_code", "torch_dtype"):  # what the Auto classes pass along
            value = hub.pop(ignored, None)
            dtype = dtype if ignored != "torch_dtype" else dtype or value
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
        features = getattr(out, "features", None)
        if not self.training and features is not None and not torch.compiler.is_compiling():
            bad = features.numel() - int(torch.isfinite(features).sum())
            if bad:
                pixels = args[0] if args else kwargs.get("pixel_values")
                clean = pixels is None or bool(torch.isfinite(pixels.float()).all())
                cause = f"the weights and their dtype {features.dtype}" if clean else "pixel_values: NaN or Inf in them"
                raise ValueError(f"{bad} of {features.numel()} feature values are not finite; look at {cause}")
        return out

    def freeze(self) -> "RadioEncoder":
        """No parameter trains, and positions stay those of evaluation, also when a parent switches to training."""
        self.embeddings.cpe_training = False
        return self.requires_grad_(False).eval()

    def load_text_tower(self, adaptor: str, source: str | None = None):
        """The text side of a teacher head (siglip2, clip), from the local cache or `source`: a `TextTower`."""
        from encoders.text_towers import load_text_tower

        if adaptor not in self.adaptors:
            raise RadioCheckpointError(
                f"adaptor {adaptor!r} is not loaded; loaded: {', '.join(self.adaptors) or 'none'} "
                "(pass adaptors=[...] to from_pretrained)"
            )
        return load_text_tower(adaptor, source)


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
