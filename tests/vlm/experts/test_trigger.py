"""The grammar of calls against what language models really write, and against replies made to stall it."""

import random
import time

import pytest

from vlm.experts.trigger import TriggerError, attempt_text, parse_trigger

PLAIN = "not a valid trigger; write <NAME"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<LESIONS()> and <CXR()>", "one trigger at a time"),
        ("<LESIONS()>\n\n<lesions()>", "one trigger at a time"),
        ("<LESIONS(<CXR()>)>", "triggers cannot be nested"),
        ("<LESIONS(a(b))>", PLAIN),
        ("<LESIONS(a[b])>", "arguments are words"),
        ("<LESIONS(", PLAIN),
        ("<LESIONS()", PLAIN),
        ("<LESIONS(liver>", PLAIN),
        ("<LESIONS)>", PLAIN),
        ("LESIONS(liver)>", PLAIN),
        ("<LESIONS()) >", PLAIN),
        ("<lesions()>", "in capitals"),
        ("<Lesions(liver)>", "in capitals"),
        ("＜LESIONS()＞", "plain characters"),
        ("<LESIONS（liver）>", "plain characters"),
        ("〈LESIONS()〉", "plain characters"),
        ("<L\u0415SIONS()>", "plain characters"),  # a Cyrillic letter
        ("<\u041bESIONS()>", "plain characters"),
        ("<LESIONS(l\u0456ver)>", "arguments are words"),
        ("<LESIONS(liver\n)>", "on one line"),
        ("<LESIONS(\r\nliver)>", "on one line"),
        ("<LESIONS(\u200bliver)>", "arguments are words"),
        ("<LESIONS(liver,,lung)>", "arguments are words"),
        ("<LESIONS(" + "liver" * 200 + ")>", "too long"),
        ("```\n<LESIONS()>\n```", "quoted"),
        ("Call `<LESIONS()>` then", "quoted"),
        ("> <LESIONS()>", "quoted"),
        ('Write "<LESIONS()>" to ask.', "quoted"),
        ("Write “<LESIONS()>” to ask.", "quoted"),
    ],
)
def test_each_slip_is_told_apart(text, message):
    with pytest.raises(TriggerError, match=message):
        parse_trigger(text)


@pytest.mark.parametrize(
    "text",
    [
        "HR < x (bpm) and T < Tmax (normal)",
        "a <b> c",
        "f(x)>0",
        "P(A)>0.5 and SUV(max)> 2.5",
        "<LESIONS>",
        "LESIONS (2)",
        "see <https://example.org/a(b)>",
        "x < (y)",
        "<1(2)>",
    ],
)
def test_prose_is_an_answer(text):
    assert parse_trigger(text) is None


def test_a_call_after_a_closed_code_block_is_a_call():
    assert str(parse_trigger("```\nx\n```\nThen `y`: <SEG(liver ,lung)>")) == "<SEG(liver, lung)>"
    assert parse_trigger("It's the patient's: <SEG()>").name == "SEG"


PIECES = ("<", "<A", "<A(", "<A(a", "<A()>", "a ", " ", "\t", "a,", "(", ")", "`", '"', "\n", "> ", "```", "＜", "é")


@pytest.mark.parametrize("piece", [*PIECES, "<A(" + "a" * 40, "< a ", "<a\t ("])
def test_a_long_reply_takes_linear_time(piece):
    """100 kB of anything, alone or as the inside of a call: no more than a fraction of a second."""
    many = piece * (100_000 // len(piece))
    for text in (many, f"<A({many})>", f"<A(a{many}", f"<A {many}", f"<{many}(", f"{many}<A()>"):
        start = time.thread_time()  # what else runs on this machine does not count
        try:
            parse_trigger(text)
        except TriggerError:
            pass
        attempt_text(text)
        assert time.thread_time() - start < 0.5, text[:40]


def test_random_replies_are_an_answer_a_trigger_or_an_error():
    rng = random.Random(0)
    kinds = set()
    for _ in range(5000):
        text = "".join(rng.choice((*PIECES, "LESIONS", "liver", ")>", chr(rng.randrange(1, 0xD7FF)))) for _ in range(8))
        try:
            trigger = parse_trigger(text)
            kinds.add(trigger is not None)
            assert trigger is None or parse_trigger(str(trigger)) == trigger
        except TriggerError as error:
            kinds.add("error")
            assert str(error) and len(attempt_text(text)) <= 100
    assert kinds == {True, False, "error"}
