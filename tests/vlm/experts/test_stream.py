"""A conversation as events, and as a pipeline: the same as in one go."""

import pytest

from tests.helpers.odd_experts import Odd, ask, asked, write_image
from vlm.experts import Answer, CallFinished, CallStarted, ExpertSession, Offered, TextDelta


@pytest.fixture
def session():
    with ExpertSession(["ODD"], instances={"ODD": Odd()}) as session:
        yield session


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "a.dcm")


REPLIES = ["I ask <ODD(mask)>", "<ODD(fine)> <ODD(fine)>", "It is left."]


def test_events_come_in_the_order_in_which_things_happen(session, image):
    replies, happened = iter(REPLIES), []

    def generate_stream(messages):
        happened.append(f"asked {len(messages)}")
        for word in next(replies).split(" "):
            yield f"{word} "

    for event in session.stream(generate_stream, asked(image)):
        happened.append(event)
    kinds = [one if isinstance(one, str) else type(one) for one in happened]
    assert kinds == [
        Offered, "asked 1", *[TextDelta] * 3, CallStarted, CallFinished,
        "asked 3", *[TextDelta] * 2, CallStarted, CallFinished,
        "asked 5", *[TextDelta] * 3, Answer,
    ]  # fmt: skip
    assert happened[0].experts == ("ODD",) and happened[0].notes == ()
    started = [event.trigger for event in happened if isinstance(event, CallStarted)]
    assert str(started[0]) == "<ODD(mask)>" and started[1] is None
    assert happened[-1].text == "It is left. "
    whole = ask(session, asked(image), *REPLIES)
    assert [c.text for c in happened[-1].transcript.calls] == [c.text for c in whole.calls]
    assert len(happened[-1].transcript.messages) == len(whole.messages) == 6


def test_a_listener_may_leave(session, image):
    stream = session.stream(lambda messages: ["<ODD(fine)>"], asked(image))
    assert isinstance(next(stream), Offered) and isinstance(next(stream), TextDelta)
    stream.close()
    assert ask(session, asked(image), "<ODD(fine)>").calls[0].ok


class Pipe:
    """What a transformers pipeline looks like from outside."""

    task, model = "image-text-to-text", None

    def __init__(self, form):
        self.form, self.replies = form, iter(REPLIES)

    def __call__(self, text, return_full_text):
        assert not return_full_text
        return self.form(next(self.replies))


FORMS = [
    lambda reply: [{"generated_text": reply}],
    lambda reply: [[{"generated_text": reply}]],
    lambda reply: [{"generated_text": [{"role": "assistant", "content": reply}]}],
]


@pytest.mark.parametrize("form", FORMS)
def test_it_is_called_like_a_pipeline(session, image, form):
    transcript = session(asked(image), Pipe(form))
    assert transcript.answer == "It is left." and len(transcript.calls) == 2
    replies = iter(REPLIES)
    assert session(asked(image), lambda messages: next(replies)).answer == transcript.answer
    assert session(asked(image), lambda messages: "left", offer=False).offered == []
    with pytest.raises(TypeError, match="must answer with text"):
        session(asked(image), lambda messages: 3)


def test_a_real_pipeline_answers(session, image):
    from transformers import pipeline

    from tests.helpers.tiny_vlm import build_tiny

    model, processor = build_tiny()
    model.generation_config.max_new_tokens = 3
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    transcript = session(asked(image), pipe)
    assert isinstance(transcript.answer, str) and transcript.offered == ["ODD"]
