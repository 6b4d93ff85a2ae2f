"""Confusion tables against rows counted by hand."""

from eval.report.confusion import ANOTHER, MALFORMED, NONE, OTHER_MODALITY, answer_sets, calls, share_text, yes_no
from tests.helpers.small_results import row


def first(reply, wanted, **about):
    turns = [{"role": "user", "text": "q"}, {"role": "assistant", "text": reply}]
    return row("a", 1.0, wanted_expert=wanted, turns=turns, **about)


def test_calls_by_the_first_reply():
    rows = [
        *[first("<A()>", "A")] * 3, first("<B(x)>", "A"), first("four", "A"), first("<a()>", "A"),
        first("<B(x)>", "<B(x)>"), first("<B(y)>", "<B(x)>"),
        *[first("no", None)] * 2, first("<A()>", None),
        first("T2", None, offer=["A"]), first("<A()>", None, offer=["A"]),
        first("<A()>", "A", control="expert_wrong"), row("other", 1.0),
    ]  # fmt: skip
    found = calls(rows)
    assert found.gold == ["A", "B", NONE, OTHER_MODALITY] and found.said == ["A", "B", MALFORMED, NONE]
    assert found.counts == [[3, 1, 1, 1], [0, 2, 0, 0], [1, 0, 0, 2], [1, 0, 0, 1]]
    assert found.share(0, 0) == 0.5
    right = [(i, j) for i in range(4) for j in range(4) if found.right(i, j)]
    assert right == [(0, 0), (1, 1), (2, 3), (3, 3)], "no call is right for a card of another modality, too"


def test_no_table_of_calls_without_any_expert():
    assert calls([row("a", 1.0)]) is None and calls([first("four", None)]) is None
    assert calls([first("<x()>", None)]).counts == [[1, 0]]


def answered(kind, gold, output, **about):
    score = about.pop("score", float(gold == output))
    return row("a", score, kind=kind, answers=[gold], output=output, **about)


def test_yes_and_no_by_finding():
    rows = [
        answered("effusion", "yes", "yes"), answered("effusion", "Yes.", "Yes, there is."),
        answered("effusion", "yes", "no"), answered("effusion", "yes", "I know not"),
        answered("effusion", "no", "no"), answered("effusion", "no", "<think>yes</think>no"),
        answered("effusion", "no", "yes"), answered("effusion", "no", "", error="OSError"),
        answered("nodule", "no", "no"), answered("size", "14", "yes"),
        answered("effusion", "yes", "yes", control="expert_wrong"), answered("effusion", "yes", "x", unscored="why"),
    ]  # fmt: skip
    effusion, nodule = yes_no(rows)
    assert (effusion.about, effusion.yes_yes, effusion.yes_no, effusion.yes_neither) == ("effusion", 2, 1, 1)
    assert (effusion.no_yes, effusion.no_no, effusion.no_neither) == (1, 2, 1)
    assert effusion.sensitivity == (2, 4) and effusion.specificity == (2, 4)
    assert share_text(*effusion.sensitivity) == "0.500 [0.15–0.85]"
    assert nodule.sensitivity == (0, 0) and share_text(*nodule.sensitivity) == "–"
    many = yes_no([answered("k", "yes", "yes", kinds=["a", "b"])])
    assert [one.about for one in many] == ["a", "b"], "a question of two kinds is in both"


def test_small_sets_of_answers():
    rows = [answered("side", "left", "left")] * 5 + [answered("side", "left", "right")] * 2
    rows += [answered("side", "right", "The right.", score=1.0), answered("side", "right", "top")]
    rows += [answered("side", "right", "left", error="OSError")]
    rows += [answered("number", str(n), str(n)) for n in (10, 2, 0) * 4]
    rows += [answered("size", str(n % 9), "4") for n in range(90)]  # nine answers: too many
    rows += [answered("few", word, word) for word in "abab"]  # two answers of each say nothing of a closed set
    rows += [answered("same", "x", "x")] * 20 + [answered("there", w, w) for w in ("yes", "no") * 9]
    number, side = answer_sets(rows)
    assert side.gold == ["left", "right"] and side.said == ["left", "right", ANOTHER]
    assert side.counts == [[5, 2, 0], [0, 1, 2]]
    assert number.gold == ["0", "2", "10"], "numbers by size"
    assert number.counts == [[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]]
