"""One training step of the real model on the meta device, its memory followed operation by operation.

Nothing here is a formula for a layer: whatever the model, its freezing, adapters and checkpointing do is what is run.
"""

from dataclasses import dataclass

import torch
from torch import nn

from llm.packed_attention import PACKED_SDPA, no_mask
from training.plan.batch import PlannedBatch
from training.plan.live_bytes import LiveBytes
from training.plan.stand_ins import planned_loss, stand_ins


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one forward and backward pass, beside weights and optimizer.

    Attributes:
        inputs: the batch itself. encoder: held by encoder and projector for the backward pass.
        forward: held when the forward pass ends.
        encoder_peak, forward_peak, backward_peak: the most in these parts of the step, gradients of weights leaving as
            they are complete. backward_with_gradients: the same while these gradients stay.
    """

    inputs: float
    encoder: float
    forward: float
    encoder_peak: float
    forward_peak: float
    backward_peak: float
    backward_with_gradients: float

    @property
    def peak(self) -> float:
        """The most of all, without gradients of weights."""
        return max(self.encoder_peak, self.forward_peak, self.backward_peak)

    @property
    def peak_with_gradients(self) -> float:
        """The most of all where gradients come into being during the step and stay to its end."""
        return max(self.encoder_peak, self.forward_peak, self.backward_with_gradients)


def meta_step(model: nn.Module, batch: PlannedBatch) -> StepMemory:
    """Run `model` (a VLM on the meta device, in training mode, requires_grad set) on a batch of this size."""
    memory = LiveBytes([*model.parameters(), *model.buffers()])

    def leave(parameter: nn.Parameter) -> None:
        memory.park(parameter.grad.untyped_storage().nbytes())
        parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(leave) for p in model.parameters() if p.requires_grad]
    try:
        with stand_ins(), memory:
            pixels, ids = _inputs(model, batch)
            inputs = memory.now
            embeds = _embed(model, batch, pixels, ids)
            encoder, encoder_peak = memory.now - inputs, memory.mark()
            hidden = _language_model(model, batch, embeds)
            del embeds
            loss = planned_loss(hidden, model.get_output_embeddings())
            del hidden
            forward, forward_peak = memory.now, memory.mark()
            memory.peak_parked = forward
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return StepMemory(inputs, encoder, forward, encoder_peak, forward_peak, memory.peak, memory.peak_parked)


def _inputs(model, batch: PlannedBatch) -> tuple[torch.Tensor | None, torch.Tensor]:
    config = model.config.vision_config
    pixels = None
    if batch.patches:
        pixels = torch.empty(batch.patches, config.patch_dim, dtype=torch.float32, device="meta")
    # ids, labels, token types and mask or sample numbers
    ids = torch.empty(4, batch.rows, batch.length, dtype=torch.long, device="meta")
    return pixels, ids


def _embed(model, batch: PlannedBatch, pixels, ids) -> torch.Tensor:
    embeds = model.get_input_embeddings()(ids[0])
    if pixels is None:
        return embeds + model._idle_media().to(embeds)
    features = model.media_tokens(pixel_values=pixels, image_grid_hw=torch.tensor(batch.grids)).images
    mask = torch.empty(batch.rows, batch.length, 1, dtype=torch.bool, device="meta")
    return embeds.masked_scatter(mask, features.to(embeds))


def _language_model(model, batch: PlannedBatch, embeds: torch.Tensor) -> torch.Tensor:
    language = model.language_model
    options = {"inputs_embeds": embeds, "use_cache": False}
    if batch.packed and language.config._attn_implementation == PACKED_SDPA:
        lengths = torch.full((batch.rows,), batch.length)
        options |= {"attention_mask": no_mask(embeds), "sample_lengths": lengths}
        options["position_ids"] = torch.empty(batch.rows, batch.length, dtype=torch.long, device="meta")
        if language.llm_family.swaps:
            options["seq_idx"] = torch.empty(batch.rows, batch.length, dtype=torch.int32, device="meta")
    elif batch.rows > 1:
        options["attention_mask"] = torch.empty(batch.rows, batch.length, dtype=torch.long, device="meta")
    return language.run_base(**language.llm_family.base_options(language.config), **options).last_hidden_state
