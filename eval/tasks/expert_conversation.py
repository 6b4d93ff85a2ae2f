"""Questions that a model may answer with the help of an expert, and what the expert was worth.

Controls: the expert is not offered; the expert reports on another file, whose answer to the same question differs.
The conversation runs through `vlm.experts`, the code that also serves `chat`, so what is measured is what users get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eval.aggregates import Aggregate, TriggerPrecision, TriggerRecall
from eval.backends.base import Messages, Reply
from eval.controls import EXPERT_WITHHELD, EXPERT_WRONG, UNCONTROLLED, choose_donors
from eval.data import Sample, text_of
from eval.generation import Generator, Request
from eval.metrics.expert_trigger import called_expert
from eval.tasks.base import Options, Row, Task

if TYPE_CHECKING:
    from vlm.experts import ExpertSession

MAX_CALLS = 1


class ExpertConversation(Task):
    """Base of the tasks with an expert on offer."""

    controls = (EXPERT_WITHHELD, EXPERT_WRONG)
    medical = True
    experts: tuple[str, ...] | None = None  # by name; None: all that this machine can run, for files of any modality

    def session(self) -> ExpertSession:
        """What runs the conversations: which experts there are, and for which files they are offered."""
        from vlm.experts import ExpertSession

        return ExpertSession(self.experts, max_calls=MAX_CALLS)

    def wanted_expert(self, sample: Sample, called: str | None) -> str | None:
        """The expert that should be called for a sample, given which one was; None where none should be."""
        return sample.meta.get("expert")

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        """Rows of the questions with the expert, with a wrong expert, and without. The first two share batches."""
        samples = self.prepare(samples, options)
        rows = [self.row(sample, Reply(error=sample.problem), None, {}) for sample in samples if sample.problem]
        samples = [sample for sample in samples if not sample.problem]
        asked: list[tuple[Sample, Sample | None]] = [(sample, None) for sample in samples]
        controls = self.wants_controls(options)
        if controls:
            pairs = list(zip(samples, choose_donors(samples, options.seed)))
            asked += [(sample, donor) for sample, donor in pairs if donor is not None]
        rows += self.converse(asked, generator, options, offer=True)
        if controls:
            alone = {sample.id for sample, donor in pairs if donor is None}
            for row in rows:
                row |= {UNCONTROLLED: [EXPERT_WRONG]} if row["id"] in alone else {}
            rows += self.converse([(sample, None) for sample in samples], generator, options, offer=False)
        return rows

    def converse(
        self, asked: Sequence[tuple[Sample, Sample | None]], generator: Generator, options: Options, offer: bool
    ) -> list[Row]:
        """One conversation per (sample, donor of the expert's file or None), all rounds batched over conversations."""
        control = None if offer else EXPERT_WITHHELD
        who: dict[int, tuple[str, str | None]] = {}  # conversations keep their identity over rounds
        last: dict[int, Reply] = {}
        turn = 0

        def generate(conversations: list[Messages]) -> list[str]:
            nonlocal turn
            turn += 1
            for conversation, (sample, donor) in zip(conversations, asked if turn == 1 else []):
                who[id(conversation)] = sample.id, EXPERT_WRONG if donor else control
            names = [who[id(c)] for c in conversations]
            requests = [Request(n, c, self.request_key(n, of, turn)) for (n, of), c in zip(names, conversations)]
            label = f"{self.key}{'' if offer else ' without expert'}, turn {turn}"
            replies = generator.answer(requests, self.decoding(options), label)
            last.update({id(c): reply for c, reply in zip(conversations, replies)})
            return [reply.text for reply in replies]

        with self.session() as session:
            transcripts = session.run_batch(
                generate,
                [sample.prompt for sample, _ in asked],
                offer=offer,
                expert_override=[donor.media[-1] if donor else None for _, donor in asked],
            )
        rows = []
        for (sample, donor), transcript in zip(asked, transcripts):
            first = next((text_of(m) for m in transcript.messages if m["role"] == "assistant"), "")
            called = called_expert(first)
            note: dict[str, Any] = {
                "wanted_expert": self.wanted_expert(sample, called),
                "called_expert": called,
                "calls": [call.as_json() for call in transcript.calls],
                "turns": [{"role": m["role"], "text": text_of(m)} for m in transcript.messages],
            }
            if donor is not None:
                note |= {"donor": donor.id, "expert_file": donor.media[-1]}
            rows.append(self.row(sample, last[id(transcript.messages)], EXPERT_WRONG if donor else control, note))
        return rows

    def aggregates(self) -> dict[str, Aggregate]:
        """As usual, and how well the model decided when to call."""
        return {**super().aggregates(), **{one.name: one for one in (TriggerPrecision(), TriggerRecall())}}
