"""Controls: the same questions with the evidence taken away, to show that a score comes from looking.

- images exchanged: the picture of another sample of the same kind whose answer differs;
- frames shuffled: the video's frames out of order, neither as they were nor simply reversed;
- expert wrong: the expert's result for another sample (the donor rule of the images).
(Expert withheld needs no choice: the expert is not offered.)

Every choice depends on the seed and the sample's id alone - never on order, batch or process - so a control can be
repeated for one sample.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from eval.data import MEDIA_KINDS, Sample, media_items
from eval.metrics.accuracy import normalise_answer

IMAGES_EXCHANGED = "images_exchanged"
FRAMES_SHUFFLED = "frames_shuffled"
EXPERT_WITHHELD = "expert_withheld"
EXPERT_WRONG = "expert_wrong"

UNCONTROLLED = "uncontrolled"
"""Key of a row: the controls that were wanted but could not be made for its question (there was no donor, say)."""


def answers_differ(a: Sample, b: Sample) -> bool:
    """True if no acceptable answer of one is acceptable for the other."""
    return not {normalise_answer(x) for x in a.answers} & {normalise_answer(x) for x in b.answers}


def choose_donors(samples: Sequence[Sample], seed: int) -> list[Sample | None]:
    """For each sample another one whose evidence will stand in for its own; None where there is none.

    A donor has the same kind, other media of the same types and a different answer. Samples with the same question come
    first, since there the exchanged picture really holds an answer - a wrong one - and the model is not merely
    confused. Where another question has to do, media about which the SAME question is known to have the same answer are
    left out.
    """
    by_question: dict[tuple, list[Sample]] = defaultdict(list)
    by_kind: dict[tuple, list[Sample]] = defaultdict(list)
    for sample in sorted((s for s in samples if not s.problem), key=lambda s: s.id):
        by_question[sample.kind, _media_types(sample), sample.question].append(sample)
        by_kind[sample.kind, _media_types(sample)].append(sample)

    def donor(sample: Sample) -> Sample | None:
        if sample.problem or not sample.media:
            return None
        rng = random.Random(f"donor:{seed}:{sample.id}")
        same_question = by_question[sample.kind, _media_types(sample), sample.question]
        found = _draw(same_question, lambda s: s.group != sample.group and answers_differ(sample, s), rng)
        if found is None:
            useless = {s.group for s in same_question} | {sample.group}
            pool = by_kind[sample.kind, _media_types(sample)]
            found = _draw(pool, lambda s: s.group not in useless and answers_differ(sample, s), rng)
        return found

    return [donor(sample) for sample in samples]


def _media_types(sample: Sample) -> frozenset[str]:
    return frozenset(item["type"] for item in media_items(sample.prompt))


def _draw(pool: Sequence[Sample], fits: Callable[[Sample], bool], rng: random.Random) -> Sample | None:
    """A random fitting member of `pool`. Drawing comes before searching: most members of a large pool fit."""
    for _ in range(32 if pool else 0):
        candidate = rng.choice(pool)
        if fits(candidate):
            return candidate
    fitting = [candidate for candidate in pool if fits(candidate)]
    return rng.choice(fitting) if fitting else None


def exchange_media(sample: Sample, donor: Sample) -> list[dict]:
    """The prompt of `sample` with the media of `donor` in its places (repeated or cut to the number of places)."""
    stand_ins = media_items(donor.prompt)
    taken = 0
    messages = []
    for message in sample.prompt:
        content = []
        for item in message["content"]:
            if item["type"] in MEDIA_KINDS:
                item, taken = stand_ins[taken % len(stand_ins)], taken + 1
            content.append(item)
        messages.append({**message, "content": content})
    return messages


def shuffled_order(num_frames: int, seed: int, sample_id: str) -> list[int] | None:
    """A random order of `num_frames` frames that is neither rising nor falling; None below 3 frames (no such order)."""
    if num_frames < 3:
        return None
    rng = random.Random(f"frames:{seed}:{sample_id}")
    order = list(range(num_frames))
    while order in (sorted(order), sorted(order, reverse=True)):
        rng.shuffle(order)
    return order
