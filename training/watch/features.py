"""Size of the encoder's features where they enter the projector, measured at the first step.

A projector without a norm in front learns badly from features whose spread is in the tens (swapping encoders fails that
way), and a pair of encoder and preprocessing that do not fit shows here first. Written to `encoder_features.json`.
"""

import json
import logging
import math
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from training.ranks import all_ranks, gather_objects

logger = logging.getLogger("training")
FILE = "encoder_features.json"
RANGE = (0.1, 10.0)  # spreads a projector without a norm takes
SMALL_SIDE = 400  # pixels; loss spikes were reported with RADIO at 224 and 336
PATIENCE = 20  # steps without any picture after which the watch ends


class EncoderFeatures(TrainerCallback):
    """Mean, spread and largest value of the features of the first batch with pictures, over all ranks.

    Args:
        model: the unwrapped model: its `forward` gets the batch, `multi_modal_projector` the features.
        folder: where the file goes. device: on which the ranks talk to each other.
    """

    def __init__(self, model: nn.Module, folder: str | Path, device: torch.device):
        self.path, self.config, self.device = Path(folder) / FILE, model.config, device
        self.sums: torch.Tensor | None = None  # count, sum, sum of squares, largest
        self.sides: list[float] = []
        self.has_pictures = False
        self.steps = 0
        patch = self.config.vision_config.patch_size
        self.patch = patch if isinstance(patch, int) else patch[0]
        projector = getattr(model, "multi_modal_projector", None)
        self.hooks = []
        if projector is not None:
            self.hooks = [
                model.register_forward_pre_hook(self._see_batch, with_kwargs=True),
                projector.register_forward_pre_hook(self._see_features, with_kwargs=True),
            ]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step > 0:  # a resumed run: the first start measured
            self._finish()

    def on_step_end(self, args, state, control, **kwargs):
        if not self.hooks:
            return
        self.steps += 1
        found = self.result()
        if found is None and self.steps < PATIENCE:
            return
        self._finish()
        if found is not None and state.is_world_process_zero:
            self._report(found)

    def result(self) -> dict | None:
        """The figures over all ranks, None where none has seen a picture; called by all of them together."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        if self.sums is not None:
            sums += self.sums[:3].to(self.device)
        count, total, squares = all_ranks(sums).tolist()
        gathered = gather_objects((0.0 if self.sums is None else float(self.sums[3]), self.sides))
        if not count:
            return None
        mean = total / count
        sides = sorted(side for _, own in gathered for side in own)
        return {
            "mean": mean,
            "std": math.sqrt(max(squares / count - mean**2, 0.0)),
            "largest": max(largest for largest, _ in gathered),
            "values": int(count),
            "norm_before_projector": self.norm(),
            "pictures": len(sides),
            "picture_side_px": {"smallest": sides[0], "median": sides[len(sides) // 2], "largest": sides[-1]},
        }

    def norm(self) -> str | None:
        """The norm that stands before the projector's first layer, if any."""
        if self.config.vision_features.get("normalize", "none") != "none":
            return self.config.vision_features["normalize"]
        return self.config.projector_config.get("norm")

    def _see_batch(self, model, args, kwargs) -> None:
        grids = []
        for key in ("image_grid_hw", "video_grid_thw"):
            if kwargs.get(key) is not None:
                grids += [row[-2:] for row in kwargs[key].tolist()]
        self.has_pictures = bool(grids)
        if self.sums is None:  # of the first batch alone
            self.sides = [round(math.sqrt(h * w) * self.patch, 1) for h, w in grids]

    @torch.no_grad()
    def _see_features(self, projector, args, kwargs) -> None:
        if not self.has_pictures or self.sums is not None:  # a batch of text sends a blank patch through, see vlm
            return
        values = (*args, *kwargs.values())
        features = next(value for value in values if torch.is_tensor(value) and value.is_floating_point())
        exact = features.detach().double() if features.device.type != "mps" else features.detach().cpu().double()
        self.sums = torch.stack(
            [torch.tensor(float(exact.numel())).to(exact), exact.sum(), exact.square().sum(), exact.abs().max()]
        )

    def _finish(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def _report(self, found: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = {key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()}
        sides = found["picture_side_px"]
        logger.info(
            f"encoder features: mean {found['mean']:.3g}, std {found['std']:.3g}, largest {found['largest']:.3g}; "
            f"pictures of {sides['smallest']:.0f} to {sides['largest']:.0f} px (median {sides['median']:.0f})"
        )
        found["notes"] = notes(found, getattr(self.config.vision_config, "image_size", 0))
        for note in found["notes"]:
            logger.warning(note)
        self.path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def notes(found: dict, image_size: int | list[int]) -> list[str]:
    """What is odd about the figures, in words with the way out."""
    said = []
    std, norm = found["std"], found["norm_before_projector"]
    low, high = RANGE
    if not math.isfinite(std) or not math.isfinite(found["mean"]):
        said.append("encoder features are not finite: the encoder or its input is broken")
    elif std < 1e-6:
        said.append("encoder features are all alike: the encoder's weights or its input are broken")
    elif not low <= std <= high and not norm:
        said.append(
            f"encoder features have a standard deviation of {std:.3g}, and nothing normalises them before the "
            f"projector, which takes {low:g} to {high:g}: build the model with --projector norm=layernorm or "
            "--features normalize=layer_norm"
        )
    size = image_size if isinstance(image_size, int) else min(image_size)
    median = found["picture_side_px"]["median"]
    if median <= SMALL_SIDE < size:
        said.append(
            f"half of the pictures have {median:.0f} px a side or fewer: RADIO's features are made for larger ones "
            "(unstable losses were reported at 224 and 336 px); raise the geometry's patches a picture"
        )
    return said
