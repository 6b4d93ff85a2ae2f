"""Conversations with experts: offering, calling, errors fed back, controls, log. The model is a scripted function."""

import json

import pytest

from training.data.synthetic import medical
from vlm.experts import Expert, ExpertCard, ExpertResult, ExpertSession
from vlm.experts.image_facts import modality_of_file
from vlm.experts.session import image_file, offer_cards, text_of


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """(messages without the answer, answer, kind) of 40 test records, image paths absolute."""
    out = tmp_path_factory.mktemp("medical")
    medical.write(out, "test", 3, 40)
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    for row in rows:
        item = row["messages"][0]["content"][0]
        item["image"] = str(out / item["image"])
    return [(row["messages"][:-1], row["meta"]["answers"][0], row["meta"]["kind"]) for row in rows]


def obedient(kinds):
    """A generate function that asks the expert when one is offered and needed, then reads the answer off the result."""

    def one(messages):
        last = text_of(messages[-1])
        if last.startswith("error"):
            return "unknown"
        if "largest: " in last or "lesions\n" in last and "Experts" not in last:
            number, _, rest = last.partition(" ")
            if last.endswith("Number?"):
                return number
            side, _, size = rest.split("largest: ")[1].split("\n")[0].partition(", ")
            return side if last.endswith("Side?") else size.removesuffix(" mm")
        offered = text_of(messages[0]).startswith("Experts:")
        return "<LESIONS()>" if offered and last.endswith(("Side?", "Size?", "Number?")) else "no idea"

    return lambda batch: [one(messages) for messages in batch]


def test_the_expert_answers_what_the_model_asks(conversations):
    inputs = [messages for messages, _, _ in conversations]
    transcripts = ExpertSession().run_batch(obedient(None), inputs)
    for transcript, (messages, answer, kind) in zip(transcripts, conversations):
        assert transcript.triggered == (kind in medical.KINDS)
        assert transcript.offered == ["LESIONS"]
        if transcript.triggered:
            assert transcript.answer == answer
            assert [m["role"] for m in transcript.messages] == ["user", "assistant", "user", "assistant"]
            assert transcript.calls[0].ok and transcript.calls[0].result.mask.any() == (answer != "0")
            assert json.loads(json.dumps(transcript.calls[0].as_json()))["name"] == "LESIONS"
        assert not text_of(messages[0]).startswith("Experts:"), "the caller's messages are left alone"


def test_withheld_means_no_card_and_no_call(conversations):
    inputs = [messages for messages, _, _ in conversations]
    transcripts = ExpertSession().run_batch(obedient(None), inputs, offer=False)
    assert all(t.answer == "no idea" and not t.calls and not t.offered for t in transcripts)
    stubborn = ExpertSession().run_batch(lambda batch: ["<LESIONS()>"] * len(batch), inputs[:1], offer=False)[0]
    assert "not available" in stubborn.calls[0].text and not stubborn.calls[0].ok


def test_wrong_expert_reads_the_other_file(conversations):
    sizes = [(messages, answer) for messages, answer, kind in conversations if kind == "size"]
    (messages, answer), (other, other_answer) = sizes[0], next(pair for pair in sizes if pair[1] != sizes[0][1])
    override = [image_file(other)]
    transcript = ExpertSession().run_batch(obedient(None), [messages], expert_override=override)[0]
    assert transcript.answer == other_answer != answer
    assert transcript.calls[0].file == str(override[0])
    with pytest.raises(ValueError, match="expert_override"):
        ExpertSession().run_batch(obedient(None), [messages], expert_override=override * 2)


class Fake(Expert):
    """An expert that returns, or raises, what it is given."""

    card = ExpertCard("FAKE", "CT", "any", "nothing", ("liver", "lung"))

    def __init__(self, outcome):
        self.outcome = outcome

    def run(self, path, arguments):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("reply", "outcome", "expected"),
    [
        ("<FAKE(liver)>", ExpertResult("all fine"), "all fine"),
        ("<FAKE(liver)>", RuntimeError("/secret/path"), "error: FAKE failed: RuntimeError"),
        ("<FAKE(liver)>", "not a result", "error: FAKE failed: TypeError"),
        ("<FAKE(spleen)>", ExpertResult("x"), "error: unknown argument spleen; FAKE takes liver, lung"),
        ("<OTHER()>", ExpertResult("x"), "error: unknown expert OTHER; known: FAKE"),
        ("<FAKE(liver)> <FAKE(lung)>", ExpertResult("x"), "error: one trigger at a time"),
        ("<FAKE(liver(lung))>", ExpertResult("x"), "error: not a valid trigger; write <NAME(argument)>"),
    ],
)
def test_errors_are_fed_back_and_the_conversation_goes_on(conversations, reply, outcome, expected):
    session = ExpertSession(experts=["FAKE"], instances={"FAKE": Fake(outcome)})
    script = iter([reply, "done"])
    transcript = session.run(lambda batch: [next(script)], conversations[0][0])
    question = text_of(conversations[0][0][-1])
    assert text_of(transcript.messages[-2]) == f"{expected}\n{question}"
    assert transcript.answer == "done" and len(transcript.calls) == 1
    assert transcript.calls[0].ok == (expected == "all fine")


def test_calls_are_limited(conversations):
    session = ExpertSession(experts=["FAKE"], max_calls=2, instances={"FAKE": Fake(ExpertResult("again"))})
    transcript = session.run(lambda batch: ["<FAKE(liver)>"] * len(batch), conversations[0][0])
    assert [call.text for call in transcript.calls] == ["again", "again", "error: no more calls"]
    assert transcript.answer == "<FAKE(liver)>"
    with pytest.raises(ValueError, match="max_calls"):
        ExpertSession(max_calls=0)


def test_arguments_are_refused_by_an_expert_that_takes_none(conversations):
    script = iter(["<LESIONS(liver)>", "left"])
    transcript = ExpertSession().run(lambda batch: [next(script)], conversations[0][0])
    assert transcript.calls[0].text == "error: LESIONS takes no argument"


def test_experts_are_offered_by_the_header_not_by_the_name(conversations, tmp_path):
    import pydicom
    from PIL import Image

    file = image_file(conversations[0][0])
    assert modality_of_file(file) == "CT"
    data = pydicom.dcmread(file)
    data.Modality = "MR"
    data.save_as(tmp_path / "ct_scan.dcm")
    Image.new("L", (64, 64)).save(tmp_path / "ct.png")
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    for name in ("ct_scan.dcm", "ct.png", "broken.dcm", "absent.dcm"):
        content = [{"type": "image", "image": str(tmp_path / name)}, {"type": "text", "text": "Side?"}]
        transcript = ExpertSession().run(lambda batch: ["?"] * len(batch), [{"role": "user", "content": content}])
        assert transcript.offered == []


def test_malformed_use_of_the_session_is_an_error(conversations):
    messages = conversations[0][0]
    with pytest.raises(ValueError, match="end in a user turn"):
        ExpertSession().run(obedient(None), [*messages, {"role": "assistant", "content": "x"}])
    with pytest.raises(ValueError, match="replies"):
        ExpertSession().run(lambda batch: [], messages)


def test_cards_go_into_the_first_user_turn():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "Side?"}]
    out = offer_cards(messages, [Fake.card])
    assert text_of(out[1]) == "Experts:\n<FAKE(liver|lung)> CT: nothing\nSide?" and out[0] == messages[0]
    assert offer_cards(messages, []) == messages
