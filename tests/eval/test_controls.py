"""Controls take the evidence away and nothing else, and can be repeated."""

from collections import Counter

import pytest

from eval.controls import answers_differ, choose_donors, exchange_media, shuffled_order
from eval.data import Sample, media_items


def sample(number, answer, question="TAX?", kind="receipt", group=None, images=1):
    content = [{"type": "image", "image": f"/d/{group or number}-{i}.png"} for i in range(images)]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    meta = {"answers": [answer], "kind": kind, "group": str(group or number)}
    return Sample(f"s{number}", "d", messages, meta)


def corpus():
    kinds, questions = ("receipt", "form", "table"), ("TAX?", "NET?")
    return [sample(i, str(10 + i * 7 % 5), questions[i % 2], kinds[i % 3]) for i in range(120)]


def test_donors_are_of_the_same_kind_and_answer_differently():
    samples = corpus()
    for asked, donor in zip(samples, choose_donors(samples, seed=1)):
        assert donor is not None and donor.kind == asked.kind and donor.group != asked.group
        assert answers_differ(asked, donor) and donor.question == asked.question


def test_donors_depend_on_seed_and_id_only():
    samples = corpus()
    names = {s.id: d.id for s, d in zip(samples, choose_donors(samples, seed=1))}
    backwards = samples[::-1]
    assert names == {s.id: d.id for s, d in zip(backwards, choose_donors(backwards, seed=1))}
    assert names != {s.id: d.id for s, d in zip(samples, choose_donors(samples, seed=2))}
    assert len(set(names.values())) > 40, "one donor for all would be a weak control"


def test_same_answer_written_differently_is_no_donor():
    left, same, other = sample(1, "Left."), sample(2, "the left"), sample(3, "right")
    assert choose_donors([left, same, other], seed=0)[0].id == "s3"
    assert choose_donors([left, same], seed=0) == [None, None]


def test_another_question_is_a_last_resort():
    asked = sample(1, "42", "TAX?")
    other_question = sample(2, "17", "NET?")
    assert choose_donors([asked, other_question], seed=0)[0].id == "s2"
    # ... but not a page on which the same question is known to have the same answer
    same_answer_there = sample(3, "42", "TAX?", group=2)
    assert choose_donors([asked, other_question, same_answer_there], seed=0)[0] is None


def test_questions_without_media_or_with_problems_have_no_donor():
    text_only = sample(1, "42", images=0)
    broken = Sample("s2", "d", [], problem="not JSON")
    assert choose_donors([text_only, broken, sample(3, "17"), sample(4, "18")], seed=0)[:2] == [None, None]


@pytest.mark.parametrize("places, offered", [(1, 1), (3, 2), (1, 3)])
def test_exchange_replaces_media_and_keeps_words(places, offered):
    asked, donor = sample(1, "42", images=places), sample(2, "17", images=offered)
    messages = exchange_media(asked, donor)
    assert [i["image"] for i in media_items(messages)] == [f"/d/2-{n % offered}.png" for n in range(places)]
    assert messages[0]["content"][-1] == asked.prompt[0]["content"][-1]
    assert media_items(asked.prompt)[0]["image"] == "/d/1-0.png", "the sample itself stays as it is"


@pytest.mark.parametrize("frames", [3, 4, 8, 32])
def test_shuffled_order_is_neither_identity_nor_monotone(frames):
    orders = [shuffled_order(frames, seed=1, sample_id=f"s{i}") for i in range(300)]
    for order in orders:
        assert sorted(order) == list(range(frames))
        assert order != sorted(order) and order != sorted(order, reverse=True)
    assert orders == [shuffled_order(frames, seed=1, sample_id=f"s{i}") for i in range(300)]
    # no direction is left on average: as many pairs stand in the old order as in the new
    rising = Counter(order.index(0) < order.index(frames - 1) for order in orders)
    assert 0.35 < rising[True] / 300 < 0.65


def test_two_frames_cannot_be_shuffled():
    assert shuffled_order(2, seed=1, sample_id="s") is None
