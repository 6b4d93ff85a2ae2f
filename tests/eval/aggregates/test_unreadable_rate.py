"""How many multiple-choice answers name no option: failed samples count, open questions do not."""

from eval.aggregates import UnreadableRate


def row(output, options=("x", "y"), **more):
    return {"id": "1", "output": output, "scoring": {"options": list(options)} if options else {}, **more}


def test_the_share_of_answers_without_an_option():
    rows = [row("B"), row("no idea"), row("Z"), row("<think>A?</think> b"), row("<think>A, no")]
    assert UnreadableRate().value(rows) == 3 / 5
    assert UnreadableRate().value([*rows, row("A", error="out of memory")]) == 4 / 6
    assert UnreadableRate().value([*rows, row("forty", options=None)]) == 3 / 5
    assert UnreadableRate().value([row("x", options=None)]) is None


def test_equal_texts_name_no_option_and_the_rule_is_named():
    assert UnreadableRate().value([row("red", ["red", "red", "blue"])]) == 1.0
    assert UnreadableRate().value([row("B) y")]) == 0.0
    assert UnreadableRate("mmmu.parse_multi_choice_response").value([row("B) y")]) == 1.0
