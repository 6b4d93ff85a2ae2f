"""Questions on medical images with experts on offer: what `radio-vlm make-data` and `make-expert-data` write.

Which experts there are is said by the dataset's header (`experts`); in the older corpus of CT-like slices, whose header
names none, it is `LESIONS`. Cards are offered by the image's modality, as in `chat`. What a record's `meta` may say:

- `expert`: the call that is wanted, a name or a whole trigger (`<FINDINGS(effusion)>`); null where none is;
- `offer`: experts whose cards are shown although they do not fit the image, beside those that do, as in training. The
  model must not call them; if it does, the session refuses as it does everywhere;
- `form`: what the record tries (`expert`, `no_expert`, `wrong_modality`, …); there is a figure for each.

Records with `offer` stand under no control: without their cards they would be another question, and no expert ever
reports on their image, so none can report wrongly. The wrong expert reads another patient's image of the same modality,
about which the same kind of question has another answer. A model may follow it, or say that image and result disagree:
`disagreement_said` is the share of such answers among questions that want an expert, apart from accuracy;
`disagreement_said_as_asked` is the share where the expert was right, without which it says little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eval.aggregates import Aggregate, ArgumentAccuracy, FalseTriggerRate, FalseTriggerRateOtherModality, Mean
from eval.bootstrap import interval
from eval.controls import EXPERT_WRONG
from eval.data import Dataset, Sample
from eval.tasks.base import Options, Row
from eval.tasks.expert_conversation import ExpertConversation, file_of, modality_of
from eval.tasks.registry import register_task

if TYPE_CHECKING:
    from vlm.experts import ExpertSession, Transcript

DISAGREEMENT = ("disagree", "does not match", "contradict")


@register_task
class SyntheticMedical(ExpertConversation):
    name = "synthetic_medical"
    key = "medical"
    metrics = ("accuracy",)
    max_new_tokens = 16
    experts = ("LESIONS",)  # what the checkpoint was trained with: another card would be another prompt
    disagreement = DISAGREEMENT
    calibrated = True

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Raises ValueError for a header whose `experts` or `disagreement` is no list of names or words, and for a
        record that offers what is no expert of the data."""
        super().__init__(dataset)
        header = dataset.info if dataset is not None else {}
        self.disagreement = tuple(word.lower() for word in _words(header, "disagreement") or DISAGREEMENT)
        if header.get("experts") is not None:  # none at all is a list too
            self.experts = _words(header, "experts")
            self.max_new_tokens = 48  # a call with an argument, or an answer that says that it doubts the result
        for sample in dataset.samples if dataset is not None else ():
            offer = sample.meta.get("offer")
            if offer is not None and not (isinstance(offer, list) and set(map(str, offer)) <= set(self.experts)):
                raise ValueError(
                    f"record {sample.id}: offer must be a list of experts of the data ({', '.join(self.experts)}), "
                    f"not {offer!r:.80}"
                )

    def describe(self, options: Options) -> dict[str, Any]:
        return {**super().describe(options), "disagreement": list(self.disagreement)}

    def extra_cards(self, sample: Sample) -> list[str] | None:
        return sample.meta.get("offer") if file_of(sample) else None

    def controllable(self, sample: Sample) -> bool:
        return sample.meta.get("offer") is None

    def note(self, sample: Sample, transcript: Transcript, session: ExpertSession) -> dict[str, Any]:
        offer, form, modality = sample.meta.get("offer"), sample.meta.get("form"), modality_of(sample)
        unread = file_of(sample) is not None and not any(modality in c.modalities for c in session.cards.values())
        answer = transcript.answer.lower()
        return {
            "other_modality": bool(offer) or unread,
            "disagreement_said": any(words in answer for words in self.disagreement),
            **({"offer": offer} if offer is not None else {}),
            **({"form": form} if form else {}),
        }

    def aggregates(self) -> dict[str, Aggregate]:
        own = (ArgumentAccuracy(), FalseTriggerRate(), FalseTriggerRateOtherModality())
        return {**super().aggregates(), **{one.name: one for one in own}}

    def figures(self, rows: Sequence[Row]) -> dict[str, Any]:
        """As usual; with `forms`, the kinds' figures by form; and how often answers say that image and result disagree,
        where the control was made."""
        figures = super().figures(rows)
        by_form: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row.get("form"):
                by_form[row["form"]].append(row)
        if by_form:
            figures["forms"] = {form: self.kind_figures(by_form[form]) for form in sorted(by_form)}
        for name, control in (("disagreement_said", EXPERT_WRONG), ("disagreement_said_as_asked", None)):
            said = [_said(row) for row in rows if row["control"] == control and row.get("wanted_expert")]
            if said and EXPERT_WRONG in figures["controls"]:
                estimate = interval(Mean("disagreement_said"), [row for row in said if not row["error"]])
                figures[name] = None if estimate.value is None else round(estimate.value, 4)
                if estimate.low is not None:
                    figures["intervals"][name] = [round(estimate.low, 4), round(estimate.high, 4)]
        return figures


def _said(row: Row) -> Row:
    """The row as one whose score is whether it says that image and result disagree."""
    return {**row, "scores": {"disagreement_said": float(row.get("disagreement_said", False))}}


def _words(header: dict[str, Any], name: str) -> tuple[str, ...]:
    words = header.get(name) or []
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"dataset.json: {name} must be a list of strings, not {words!r}")
    return tuple(words)
