"""An exponential moving average of the trained weights, in fp32, kept where the optimizer keeps its fp32 weights.

    average = decay * average + (1 - decay) * weights        after every update

Each rank averages the piece it updates: everything without DeepSpeed and under DDP, its shard under ZeRO-1, 2 and 3,
on the CPU where ZeRO offloads. Checkpoints hold the pieces with their places, so another number of ranks can go on.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.freezing import size_of
from training.ranks import all_ranks
from training.saving import write_result
from vlm.errors import RadioVLMError

FOLDER = "ema"
FILES = "ema-rank{rank}.safetensors"


def master_piece(parameter: nn.Parameter) -> tuple[torch.Tensor, int] | None:
    """`(fp32 values, place of the first)` of the part of a flat parameter that this rank updates; None: no part."""
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_local_fp32_param

        piece = safe_get_local_fp32_param(parameter)
        start = piece.numel() * torch.distributed.get_rank(parameter.ds_process_group)
        end = min(start + piece.numel(), size_of(parameter))  # the last ranks' pieces end in padding
        return (piece.flatten()[: end - start], start) if end > start else None
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        return None if mapping is None else (mapping.get_hp_fragment(), mapping.lp_fragment_address.start)
    return parameter.detach().flatten(), 0


class Ema:
    """The averages of this rank's pieces."""

    def __init__(self, model: nn.Module, decay: float):
        """model: the unwrapped model, after DeepSpeed took its parameters over; what has requires_grad is averaged."""
        self.decay = decay
        self.parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.sharded = any(hasattr(one, "_hp_mapping") or hasattr(one, "ds_id") for one in self.parameters.values())
        self.averages: dict[str, torch.Tensor] = {}
        self.starts: dict[str, int] = {}
        for name, parameter in self.parameters.items():
            if (piece := master_piece(parameter)) is not None:
                self.averages[name], self.starts[name] = piece[0].detach().float().clone(), piece[1]

    @torch.no_grad()
    def update(self) -> None:
        """After an update of the weights."""
        for name, average in self.averages.items():
            average.lerp_(master_piece(self.parameters[name])[0].to(average), 1 - self.decay)

    def save(self, folder: Path, rank: int) -> None:
        """Write this rank's pieces; where every rank has all of them, rank 0 does."""
        if self.sharded or rank == 0:
            pieces = {name: average.cpu().contiguous() for name, average in self.averages.items()}
            places = {"starts": json.dumps(self.starts), "decay": str(self.decay)}
            save_file(pieces, folder / FILES.format(rank=rank), metadata=places)

    def load(self, folder: Path) -> None:
        """Take the averages from a checkpoint of any number of ranks.

        Raises:
            RadioVLMError: the checkpoint holds no averages, or not those of all weights.
        """
        files = sorted(folder.glob(FILES.format(rank="*")))
        if not files:
            raise RadioVLMError(
                f"train.ema_decay is set, but {folder} was written without it: leave train.ema_decay out to go on, or "
                "start the stage anew"
            )
        filled = dict.fromkeys(self.averages, 0)
        for path in files:
            with safe_open(path, framework="pt") as file:
                starts = json.loads(file.metadata()["starts"])
                for name in self.averages.keys() & starts.keys():
                    filled[name] += self._take(name, file.get_slice(name), starts[name])
        short = [name for name, average in self.averages.items() if filled[name] != average.numel()]
        if short:
            raise RadioVLMError(f"the averages in {folder} do not cover {short[0]}: it was saved for other weights")

    def _take(self, name: str, piece, start: int) -> int:
        """Copy what a saved piece and ours have in common; returns how many numbers that is."""
        average, begin = self.averages[name], self.starts[name]
        low, high = max(begin, start), min(begin + average.numel(), start + piece.get_shape()[0])
        if low >= high:
            return 0
        average[low - begin : high - begin] = piece[low - start : high - start].to(average)
        return high - low

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the averages, rounded to its own precision. Entered by every rank."""
        before = {}
        for name, parameter in self.parameters.items():
            held = parameter.ds_tensor if hasattr(parameter, "ds_id") else parameter
            before[name] = held.data.cpu().clone()
            self._put(name, parameter)
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                held = parameter.ds_tensor if hasattr(parameter, "ds_id") else parameter
                held.data.copy_(before[name])

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        average = self.averages.get(name)
        if hasattr(parameter, "ds_id"):  # ZeRO-3: the piece is what this rank holds of the weight
            if average is not None:
                parameter.ds_tensor.data.flatten()[: average.numel()].copy_(average)
            return
        if not self.sharded:
            parameter.data.copy_(average.view_as(parameter))
            return
        whole = torch.zeros(parameter.numel(), device=parameter.device)
        if average is not None:
            whole[self.starts[name] : self.starts[name] + average.numel()] = average.to(whole)
        parameter.data.copy_(all_ranks(whole).view_as(parameter))


class EmaCallback(TrainerCallback):
    """Keeps the average of a stage: starts or restores it, updates, checkpoints, and writes `output_dir/ema`."""

    def __init__(self, trainer, decay: float):
        self.trainer, self.decay = trainer, decay

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.ema = Ema(self.trainer.accelerator.unwrap_model(self.trainer.model), self.decay)
        if self.trainer.resume_folder is not None:
            self.trainer.ema.load(self.trainer.resume_folder)

    def on_optimizer_step(self, args, state, control, **kwargs):
        if not self.trainer.step_skipped:
            self.trainer.ema.update()

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.trainer.ema.save(folder, args.process_index)

    def on_train_end(self, args, state, control, **kwargs):
        with self.trainer.ema.in_place():
            write_result(self.trainer, Path(args.output_dir) / FOLDER)
