"""What a prepared causal language model can do beyond transformers' own class (see `llm.prepare`): `seq_idx` in its
forward, a loss that never makes the full logits, `inputs_embeds` that mean the same as `input_ids`,
`generate(inputs_embeds=...)`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from llm.family import LLMFamily, family_of
from llm.head_proof import why_loss_needs_logits
from llm.linear_cross_entropy import head_cross_entropy_sum, linear_cross_entropy_sum
from llm.packed_attention import PACKED_SDPA, check_attention, no_mask
from llm.packing import check_limits, drop_first_targets, pack_batch
from llm.packing_proof import why_not_packed

HEAD_ROWS = 256  # rows of hidden states in one call of a head that is more than a weight


def most_chunks(head: nn.Module, counted: int, device: torch.device) -> int:
    """The most calls of the head that any rank's counted rows need. Under ZeRO-3 a call gathers weights, which all
    ranks must do together: fewer calls on one of them is a hang. Elsewhere 1."""
    if not any(hasattr(parameter, "ds_id") for parameter in head.parameters()):
        return 1
    chunks = torch.tensor(-(-counted // HEAD_ROWS), device=device)
    torch.distributed.all_reduce(chunks, torch.distributed.ReduceOp.MAX)
    return int(chunks)


@dataclass
class PackedCausalLMOutput(CausalLMOutputWithPast):
    """transformers' output and `token_losses` (B, L): the cross entropy of each label, without gradient, on request."""

    token_losses: torch.Tensor | None = None


class PackedCausalLM:
    """Mixin over a `...ForCausalLM` class of transformers."""

    skips_logits = True
    scales_inputs_embeds = True

    @property
    def llm_family(self) -> LLMFamily:
        """The declared record of this model."""
        return family_of(self)

    @property
    def packing_enabled(self) -> bool:
        """Whether `seq_idx` is accepted: declared by the family, or proven on this very model."""
        return self.why_not_packed() is None

    @property
    def adds_nothing_to_the_loss(self) -> bool:
        """Whether the loss is the cross entropy of the labels alone, without router or z-losses of the family."""
        family = self.llm_family
        if not family.model_type:
            return why_loss_needs_logits(self) is None
        return not family.z_loss(self.config) and not (family.auxiliary_loss and family.base_options(self.config))

    @torch.compiler.disable
    def why_not_packed(self) -> str | None:
        """The reason why `seq_idx` is refused, or None."""
        family = self.llm_family
        if family.packs:
            return None
        return why_not_packed(self) if family.packing_needs_proof else f"the family {family.title} declares no way"

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        seq_idx: torch.Tensor | None = None,
        token_weights: torch.Tensor | None = None,
        skip_logits: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        z_loss: float = 0.0,
        return_token_losses: bool = False,
        row_loss: Callable | None = None,
        **kwargs,
    ):
        """As the family's own forward, and:

        Args:
            seq_idx: (B, L) integers that number the packed samples of a row upwards. Positions restart at each sample,
                no sample sees another, and the first token of a sample is no target. Training only: no cache.
            inputs_embeds: (B, L, D) rows of the embedding table (or projected features beside them).
            token_weights: (B, L) weight of each label; the loss is the weighted mean.
            skip_logits: With labels: return the loss and no logits, which are never made.
            num_items_in_batch: divides the summed loss instead of the number of labelled tokens. Where a batch is one
                of several that make a step, what a family adds (router and z-losses) counts by the share of its tokens.
            z_loss: weight of the squared log of the softmax's denominator, at labelled tokens, weighted as their loss.
            return_token_losses: with labels: `token_losses` (B, L), the loss of label t at t (0 where there is none).
            row_loss: with labels: (hidden (B, L, D), targets (B, L) that they predict, -100 for none, their weights or
                None, this model) -> () that is added to the summed cross entropy, before the division.

        Raises:
            ValueError: `seq_idx` with a model that cannot pack, with a cache, decreasing, or of another shape;
                `token_weights` without labels of their shape; `token_weights`, `z_loss` or `row_loss` with a model of
                unknown loss.
        """
        if token_weights is not None and (labels is None or token_weights.shape != labels.shape):
            shape = None if labels is None else tuple(labels.shape)
            raise ValueError(
                f"token_weights {tuple(token_weights.shape)} and labels {shape}: give one weight for every label"
            )
        if inputs_embeds is not None:
            scale = self.llm_family.embedding_scale(self.config)
            inputs_embeds = inputs_embeds if scale == 1.0 else inputs_embeds * scale
        inputs = {
            "input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask,
            "position_ids": position_ids, "past_key_values": past_key_values, "use_cache": use_cache, **kwargs,
        }  # fmt: skip
        if seq_idx is not None:
            seq_idx = self._pack(seq_idx, inputs)
            labels = labels if labels is None else drop_first_targets(labels, seq_idx)
        elif self.llm_family.swaps and getattr(attention_mask, "ndim", 0) == 2:
            tokens = input_ids if input_ids is not None else inputs_embeds
            if tokens.shape[1] == 1:  # transformers takes a lone token for no padding
                inputs["step_mask"] = attention_mask[:, -1:]
        inputs = {name: value for name, value in inputs.items() if value is not None}

        known = bool(self.llm_family.model_type)
        all_logits = not skip_logits and isinstance(logits_to_keep, int) and logits_to_keep == 0
        plain = token_weights is None and not z_loss and not return_token_losses and row_loss is None
        native = labels is None or (all_logits and plain)
        if native and not (known and seq_idx is not None):
            return self._native(inputs, labels, num_items_in_batch, logits_to_keep)
        if not known and (reason := why_loss_needs_logits(self)) is not None:
            if token_weights is not None or z_loss or row_loss is not None:
                given = "z_loss was" if z_loss else "a row_loss was" if row_loss is not None else "token_weights were"
                raise ValueError(f"{given} given, but {type(self).__name__} {reason}: leave them out")
            outputs = self._native(inputs, labels, num_items_in_batch)  # of the family's own class
            if return_token_losses:
                outputs["token_losses"] = losses_of_logits(outputs.logits, labels)
            outputs.logits = None if skip_logits else slice_logits_to_keep(outputs.logits, logits_to_keep)
            return outputs
        return_dict = inputs.pop("return_dict", None)
        outputs = self.run_base(**(self.llm_family.base_options(self.config) | inputs), return_dict=True)
        hidden, loss, logits, each = outputs.last_hidden_state, None, None, None
        if labels is not None:
            if return_token_losses:
                each = hidden.new_zeros(hidden.shape[:2], dtype=torch.float32)
            loss, share = self._loss(hidden, labels, token_weights, num_items_in_batch, z_loss, each, row_loss)
            loss = self._with_auxiliary(loss, outputs, attention_mask, share)
        if labels is None or not skip_logits:
            logits = self.logits_of(slice_logits_to_keep(hidden, logits_to_keep))
        result = PackedCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            token_losses=None if each is None else nn.functional.pad(each[:, :-1], (1, 0)),
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return result if return_dict else result.to_tuple()

    def _native(self, inputs: dict, labels, num_items_in_batch, logits_to_keep=0):
        """The family's own forward, with its own loss where there are labels."""
        inputs = dict(inputs)
        if labels is not None:
            inputs["labels"] = labels
        elif self.llm_family.base_options(self.config):
            # no loss, no router logits: transformers' balancing loss fails on a decode step with an attention mask
            inputs.setdefault("output_router_logits", False)
        if num_items_in_batch is not None:
            inputs["num_items_in_batch"] = num_items_in_batch
        return self.run_native(logits_to_keep=logits_to_keep, **inputs)

    def _pack(self, seq_idx: torch.Tensor, inputs: dict) -> torch.Tensor:
        """Put what keeps packed samples apart into `inputs`; returns the checked `seq_idx`."""
        if (reason := self.why_not_packed()) is not None:
            raise ValueError(
                f"{type(self).__name__} (model_type {self.config.model_type!r}) cannot keep packed samples apart: "
                f"{reason}; leave seq_idx out and lay samples out with padding (one sample a row)"
            )
        if inputs["past_key_values"] is not None or inputs["use_cache"] or inputs.get("cache_params") is not None:
            raise ValueError("seq_idx and a cache were both given: packed rows are for training, without a cache")
        like = inputs["input_ids"] if inputs["input_ids"] is not None else inputs["inputs_embeds"]
        seq_idx, packed = self.packed_arguments(seq_idx, like, inputs["attention_mask"], inputs["position_ids"])
        inputs.update(packed)
        return seq_idx

    def _with_auxiliary(self, loss: torch.Tensor, outputs, attention_mask, share: torch.Tensor) -> torch.Tensor:
        """The loss plus `share` of what the family adds for its layers, such as the balancing loss of routers."""
        family = self.llm_family
        extra = None if family.auxiliary_loss is None else family.auxiliary_loss(self, outputs, attention_mask)
        if extra is None:
            return loss
        lost = outputs.last_hidden_state.requires_grad and not extra.requires_grad
        if lost and any(getattr(module, "gradient_checkpointing", False) for module in self.modules()):
            raise ValueError(
                "reentrant gradient checkpointing and a router loss were both asked for: the router loss would "
                'have no gradient; use gradient_checkpointing_enable({"use_reentrant": False}), or set '
                "config.output_router_logits = False"
            )
        return loss + share * extra.to(loss.device)

    def run_native(self, **inputs):
        """The family's own forward."""
        return super().forward(**inputs)

    def run_base(self, **inputs):
        """The model below the head; its output has `last_hidden_state`."""
        return self.base_model(**inputs)

    def prepare_inputs_for_generation(self, input_ids, inputs_embeds=None, **kwargs):
        """Named here because transformers allows `generate(inputs_embeds=...)` only where this signature names it."""
        if kwargs.get("seq_idx") is not None:
            raise ValueError("generate and seq_idx were both asked for: a row is one prompt there, leave it out")
        return super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    @torch.compiler.disable  # it reads the data
    def packed_arguments(self, seq_idx, like, attention_mask=None, position_ids=None) -> tuple[torch.Tensor, dict]:
        """Checked `seq_idx` (B, L) and what the base model needs beside or instead of the given arguments; `like` is
        (B, L) or (B, L, D)."""
        seq_idx = seq_idx.to(like.device) if isinstance(seq_idx, torch.Tensor) else seq_idx
        batch = pack_batch(seq_idx, like.shape[:2], attention_mask, position_ids)
        check_limits(self.config, batch)
        implementation = self.config._attn_implementation or ""
        check_attention(implementation)
        packed = {"position_ids": batch.position_ids, "use_cache": False, "attention_mask": None}
        if self.llm_family.swaps:
            packed["seq_idx"] = batch.seq_idx
        if implementation == PACKED_SDPA:
            packed |= {"attention_mask": no_mask(like), "sample_lengths": torch.tensor(batch.lengths)}
        elif "flash" in implementation:
            longest = max(batch.lengths)
            packed |= {"cu_seq_lens_q": batch.cu_seqlens, "cu_seq_lens_k": batch.cu_seqlens}
            packed |= {"max_length_q": longest, "max_length_k": longest}
        return batch.seq_idx, packed

    def logits_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., V) logits of (..., D) hidden states."""
        logits = self.get_output_embeddings()(hidden) * self.llm_family.logit_scale(self.config)
        cap = self.llm_family.softcap(self.config)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _loss(
        self, hidden, labels, token_weights, num_items_in_batch, z_loss: float = 0.0, token_losses=None, row_loss=None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(loss, share)`: shifted cross entropy from (B, L, D) hidden states plus the family's z-loss over all
        positions, and the share this batch has in what divides it (1 where the batch divides its own sum)."""
        family, config = self.llm_family, self.config
        targets = nn.functional.pad(labels[:, 1:], (0, 1), value=-100).to(hidden.device)
        labelled = targets != -100
        weights = None
        if token_weights is not None:
            weights = nn.functional.pad(token_weights[:, 1:], (0, 1)).to(hidden.device).masked_fill(~labelled, 0)
        own = labelled.sum() if weights is None else weights.sum()
        count = torch.as_tensor(own if num_items_in_batch is None else num_items_in_batch, device=hidden.device)
        share = torch.where(count == 0, 1.0, own / count)
        count = torch.where(count == 0, torch.ones_like(count), count)  # nothing to learn: loss 0, not NaN
        options = {"scale": family.logit_scale(config), "softcap": family.softcap(config), "token_weights": weights}
        if z_loss:
            options["z_weights"] = z_loss * (labelled.float() if weights is None else weights.float())
        if everywhere := family.z_loss(config):
            z_weights = torch.ones_like(targets, dtype=torch.float32) * share * count * (everywhere / targets.numel())
            options["z_weights"] = z_weights + options.get("z_weights", 0.0)
        options["token_losses"] = token_losses
        head = self.get_output_embeddings()
        if type(head) is nn.Linear:
            total = linear_cross_entropy_sum(hidden, head.weight, targets, bias=head.bias, **options)
        else:  # an adapter or a quantized layer: only its own forward knows what it computes
            counted = int(labelled.sum() if weights is None else (weights != 0).sum())
            counted = targets.numel() if everywhere and bool(share) else counted
            calls = {"rows_per_chunk": HEAD_ROWS, "least_chunks": most_chunks(head, counted, hidden.device)}
            total = head_cross_entropy_sum(head, hidden, targets, **calls, **options)
        if row_loss is not None:
            total = total + row_loss(hidden, targets, weights, self)
        return total / count, share


@torch.no_grad()
def losses_of_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B, L) fp32 cross entropy of each label under the (B, L, V) logits of the position before it; 0 at -100."""
    labels = labels.to(logits.device)
    rows = logits[:, :-1].flatten(0, 1)
    each = nn.functional.cross_entropy(rows.float(), labels[:, 1:].flatten(), reduction="none", ignore_index=-100)
    return nn.functional.pad(each.view(len(labels), -1), (1, 0))
