"""Questions that a model may answer with the help of an expert, and what the expert was worth.

Controls: the expert is not offered; the expert reports on another file, whose answer to the same question differs.
The conversation runs through `vlm.experts`, the code that also serves `chat`, so what is measured is what users get.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.aggregates import Aggregate, TriggerPrecision, TriggerRecall
from eval.backends.base import Messages, Reply
from eval.controls import EXPERT_WITHHELD, EXPERT_WRONG, UNCONTROLLED, choose_donors
from eval.data import Sample, text_of
from eval.generation import Generator, Request
from eval.metrics.expert_trigger import called_expert
from eval.tasks.base import Ask, Options, Row, Task

if TYPE_CHECKING:
    from vlm.experts import ExpertSession, Transcript

MAX_CALLS = 1


class ExpertConversation(Task):
    """Base of the tasks with an expert on offer."""

    controls = (EXPERT_WITHHELD, EXPERT_WRONG)
    medical = True
    experts: tuple[str, ...] | None = None  # by name; None: all that this machine can run, for files of any modality

    def session(self, options: Options) -> ExpertSession:
        """What runs the conversations: which experts there are, and for which files they are offered."""
        from vlm.experts import ExpertSession

        return ExpertSession(self.experts, max_calls=MAX_CALLS, weights=options.expert_weights)

    def check(self, options: Options) -> None:
        """Raises ValueError where an expert that the task names cannot be used: without it a run would look like one
        whose model gains nothing from it."""
        from vlm.experts.protocol import get_expert
        from vlm.experts.weights import why_not

        root = Path(options.expert_weights) if options.expert_weights else None
        if root is not None and not root.is_dir():
            raise ValueError(f"--expert-weights {root}: no such folder")
        for name in self.experts or ():
            expert = get_expert(name)
            if reason := why_not(expert, root):
                own = f"{root or 'FOLDER'}/{expert.weights_name}"
                hint = f"; with --expert-weights they are looked for in {own}" if expert.weights_name else ""
                raise ValueError(f"task {self.key}: the expert {name} cannot be used here: {reason}{hint}")

    def offered(self, options: Options) -> list[str]:
        """Names of the experts that may be offered."""
        return list(self.session(options).cards)

    def describe(self, options: Options) -> dict[str, Any]:
        """Also the experts with a digest of their weights: with others, a result would be another one."""
        return {**super().describe(options), "experts": {n: digest_of(n, options) for n in self.offered(options)}}

    def wanted_expert(self, sample: Sample, called: str | None) -> str | None:
        """The expert that should be called for a sample, given which one was; None where none should be."""
        return sample.meta.get("expert")

    def extra_cards(self, sample: Sample) -> list[str] | None:
        """Experts whose cards are shown beside those that fit the image."""
        return None

    def controllable(self, sample: Sample) -> bool:
        """Whether an expert withheld or a wrong one can tell anything about this question."""
        return True

    def note(self, sample: Sample, transcript: Transcript, session: ExpertSession) -> dict[str, Any]:
        """What further a row says of its conversation."""
        return {}

    def run(self, samples: Sequence[Sample], generator: Generator, options: Options) -> list[Row]:
        """Rows of the questions with the expert, with a wrong expert, and without. The first two share batches."""
        samples = self.prepare(samples, options)
        rows = [self.row(sample, Reply(error=sample.problem), None, {}) for sample in samples if sample.problem]
        samples = [sample for sample in samples if not sample.problem]
        asked: list[tuple[Sample, Sample | None]] = [(sample, None) for sample in samples]
        controls = self.wants_controls(options)
        if controls:
            controlled = [sample for sample in samples if self.controllable(sample)]
            donors = self.donors(controlled, options)
            asked += [(sample, donors[sample.id]) for sample in controlled if sample.id in donors]
        rows += self.converse(asked, generator, options, offer=True)
        if controls:
            known, may = {sample.id for sample in samples}, {sample.id for sample in controlled}
            for row in rows:
                missed = {EXPERT_WITHHELD: row["id"] not in may, EXPERT_WRONG: row["id"] not in donors}
                if row["id"] in known and any(missed.values()):
                    row[UNCONTROLLED] = [control for control, is_missed in missed.items() if is_missed]
            rows += self.converse([(sample, None) for sample in controlled], generator, options, offer=False)
        return rows

    def donors(self, samples: Sequence[Sample], options: Options) -> dict[str, Sample]:
        """By a sample's id the one whose file the wrong expert reads: the donor rule, among images of one modality.

        An expert made to read what it cannot read would report an error, not another finding.
        """
        by_modality: dict[str | None, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_modality[modality_of(sample)].append(sample)
        groups = by_modality.values()
        pairs = [pair for group in groups for pair in zip(group, choose_donors(group, options.seed))]
        return {sample.id: donor for sample, donor in pairs if donor is not None and file_of(donor)}

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

        rows = []
        with self.session(options) as session:
            transcripts = session.run_batch(
                generate,
                [sample.prompt for sample, _ in asked],
                offer=offer,
                expert_override=[file_of(donor) if donor else None for _, donor in asked],
                extra_cards=[self.extra_cards(sample) for sample, _ in asked],
            )
            weighed = self.weighed(asked, transcripts, generator, options) if offer else {}
            for (sample, donor), transcript in zip(asked, transcripts):
                first = next((text_of(m) for m in transcript.messages if m["role"] == "assistant"), "")
                called = called_expert(first)
                note: dict[str, Any] = {
                    "wanted_expert": self.wanted_expert(sample, called),
                    "called_expert": called,
                    "calls": [call.as_json() | {"file": name_of(call.file, sample)} for call in transcript.calls],
                    "turns": [{"role": m["role"], "text": text_of(m)} for m in transcript.messages],
                    **self.note(sample, transcript, session),
                }
                note |= {} if donor else weighed.get(sample.id, {})
                if donor is not None:
                    note |= {"donor": donor.id, "expert_file": name_of(file_of(donor), sample)}
                reply = last[id(transcript.messages)]
                rows.append(self.row(sample, reply, EXPERT_WRONG if donor else control, note))
        return rows

    def weighed(
        self,
        asked: Sequence[tuple[Sample, Sample | None]],
        transcripts: Sequence[Transcript],
        generator: Generator,
        options: Options,
    ) -> dict[str, dict[str, Any]]:
        """P(yes) by sample, at the last prompt of each conversation: after the expert's result, if one was called."""
        pairs = zip(asked, transcripts)
        asks = [Ask(sample, transcript.messages[:-1], None, {}) for (sample, donor), transcript in pairs if not donor]
        self.weigh(asks, generator, options)
        return {ask.sample.id: ask.note for ask in asks}

    def aggregates(self) -> dict[str, Aggregate]:
        """As usual, and how well the model decided when to call."""
        return {**super().aggregates(), **{one.name: one for one in (TriggerPrecision(), TriggerRecall())}}


def digest_of(name: str, options: Options) -> str | None:
    """Of the weights that an expert would be opened with; None where it has none, or is an instance made by hand."""
    from vlm.experts.protocol import expert_names, get_expert
    from vlm.experts.weights import weights_digest

    root = Path(options.expert_weights) if options.expert_weights else None
    return weights_digest(get_expert(name), root) if name in expert_names() else None


def file_of(sample: Sample) -> Path | None:
    """The file that an expert reads of a sample: its last image, or the volume that the picture was taken from."""
    from vlm.experts.conversation import image_file

    return image_file(sample.prompt)


def modality_of(sample: Sample) -> str | None:
    """The modality of that file: as its header says, or the message where the header is silent."""
    from vlm.experts.conversation import image_refs
    from vlm.experts.image_facts import modality_of_file

    refs = image_refs(sample.prompt)
    return modality_of_file(refs[-1].path, refs[-1].modality) if refs else None


def name_of(file: str | Path | None, sample: Sample) -> str | None:
    """A file as results name it: by its path in the folder of the data, or else by the digest of its content.

    Where a file lies on a machine, folders called after patients included, is nobody's business.
    """
    from vlm.experts.image_facts import file_digest

    if file is None:
        return None
    path, folder = Path(file).resolve(), sample.base_dir.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file_digest(path)
