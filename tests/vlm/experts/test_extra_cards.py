"""Cards shown on purpose beside those that fit: what the model reads, what it may call, and what stays as it was."""

import numpy as np
import pytest

from tests.helpers.medical_files import new_dataset, save
from vlm.experts import Expert, ExpertCard, ExpertError, ExpertResult, ExpertSession
from vlm.experts.session import text_of

pytest.importorskip("pydicom", reason="optional package absent")


def expert(name, modality):
    class Saying(Expert):
        card = ExpertCard(name, modality, "any", "words")

        def run(self, path, arguments):
            return ExpertResult(f"{name} ran")

    return Saying()


@pytest.fixture
def session():
    return ExpertSession(["B", "A"], instances={"A": expert("A", "CT"), "B": expert("B", "MR")})


@pytest.fixture
def asked(tmp_path):
    path = save(new_dataset(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), Modality="CT"), tmp_path / "a.dcm")
    return [{"role": "user", "content": [{"type": "image", "image": str(path)}, {"type": "text", "text": "Q?"}]}]


def calling(name):
    return lambda batch: [f"<{name}()>" if len(one) == 1 else "done" for one in batch]


A, B = "<A()> CT: words\n", "<B()> MR: words\n"


@pytest.mark.parametrize(("extra", "block"), [(None, A), (["B"], B + A), (["A", "B"], B + A), ([], A)])
def test_these_cards_beside_those_that_fit_in_the_sessions_order(session, asked, extra, block):
    [transcript] = session.run_batch(lambda batch: ["done"], [asked], extra_cards=[extra])
    assert text_of(transcript.messages[0]) == f"Experts:\n{block}Q?"


def test_what_is_shown_and_does_not_fit_is_refused_with_the_reason(session, asked):
    names = iter("AB")

    def generate(batch):
        return [f"<{next(names)}()>" if len(one) == 1 else "done" for one in batch]

    right, other = session.run_batch(generate, [asked, asked], extra_cards=[["B"], ["B"]])
    assert right.calls[0].ok and right.calls[0].text == "A ran"
    assert other.calls[0].text == "error: B is not available: it reads MR, the image is CT"


def test_withheld_withholds_these_too(session, asked):
    [withheld] = session.run_batch(calling("A"), [asked], offer=False, extra_cards=[["B"]])
    assert text_of(withheld.messages[0]) == "Q?" and withheld.calls[0].text == "error: A is not available"


def test_what_cannot_be_shown(session, asked):
    with pytest.raises(ExpertError, match="unknown expert C; known: B, A"):
        session.run_batch(calling("A"), [asked], extra_cards=[["C"]])
    with pytest.raises(ValueError, match="2 extra_cards lists for 1 conversations"):
        session.run_batch(calling("A"), [asked], extra_cards=[None, None])
