"""Wording, shares and mixture: defaults, the user's files, and errors that name file and key."""

import random

import pytest
import yaml

from training.data.expert_dialogues.mixture_file import check_mixture, mixture_of, mixture_text, read_mixture
from training.data.expert_dialogues.shares import DEFAULT_SHARES, count_of, read_shares
from training.data.expert_dialogues.wording import PLACES, Wording, read_wording
from vlm.errors import RadioVLMError

RNG = random.Random(0)


def file(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return path


def test_every_default_sentence_can_be_filled():
    words = {name: name.upper() for places in PLACES.values() for name in places}
    for form in PLACES:
        for sentence in Wording().all_answers(form, **words):
            assert "{" not in sentence and "EXPERT" in sentence


def test_a_file_replaces_some_sentences_and_leaves_the_rest(tmp_path):
    text = "questions: {number: 'Number?'}\nanswers: {wrong_modality: 'not {reads}', fails: [unknown]}\n"
    wording = read_wording(file(tmp_path, text))
    assert wording.question(RNG, "number", ("How many?",)) == "Number?"
    assert wording.question(RNG, "side", ("Which side?",)) == "Which side?"
    assert wording.answer(RNG, "wrong_modality", expert="E", reads="CT", image="MRI") == "not CT"
    assert wording.answer(RNG, "fails", expert="E") == "unknown"
    assert "E" in wording.answer(RNG, "unavailable", expert="E")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("answer: {}", "unknown key 'answer'; known: questions"),
        ("- a", "it is no mapping"),
        ("answers: {failing: x}", "answers: unknown form 'failing'; known: wrong_modality"),
        ("answers: {fails: '{reads}'}", r"answers.fails: \{reads\} is not known here; known: \{expert\}"),
        ("answers: {fails: '{'}", "answers.fails: '{'"),
        ("answers: {contradiction: '{answer}.'}", "has no words of its own"),
        ("questions: {number: []}", "questions.number must be text or a list"),
        ("questions: [a]", "questions must be a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_wording_is_named(tmp_path, text, words):
    with pytest.raises(RadioVLMError, match=words):
        read_wording(file(tmp_path, text))


def test_shares(tmp_path):
    assert read_shares([]) == DEFAULT_SHARES
    assert read_shares(["expert=3", "report=0"]) == DEFAULT_SHARES | {"expert": 3, "report": 0}
    assert read_shares([str(file(tmp_path, "vqa: 0.5"))])["vqa"] == 0.5
    for said, words in (
        (["exprt=1"], "unknown form 'exprt'; known: expert"),
        (["expert=many"], "expert must be a number"),
        (["expert=-1"], "expert must be a number"),
        (["nowhere"], "nowhere is neither FORM=NUMBER nor a file"),
    ):
        with pytest.raises(RadioVLMError, match=words):
            read_shares(said)


def test_a_share_is_a_mean():
    rng = random.Random(1)
    drawn = [count_of(rng, 1.25) for _ in range(4000)]
    assert set(drawn) == {1, 2} and abs(sum(drawn) / 4000 - 1.25) < 0.03
    assert {count_of(rng, 2.0) for _ in range(50)} == {2}


def test_the_published_repeats_and_those_of_their_category():
    parts = ["expert-BRATS", "expert-CXR", "expert-MINE", "expert-VISTA3D", "negatives", "reports", "vqa"]
    entries = mixture_of(parts, {"MINE", "BRATS"}, "vila-m3")
    assert {entry["path"]: entry["repeats"] for entry in entries} == {
        "expert-BRATS": 16, "expert-VISTA3D": 8, "expert-MINE": 8, "expert-CXR": 2, "vqa": 4, "negatives": 4,
        "reports": 1,
    }  # fmt: skip
    assert yaml.safe_load(mixture_text(entries)) == entries


def test_a_mixture_of_ones_own(tmp_path):
    chosen = read_mixture(str(file(tmp_path, "vqa: 3\nexpert-A: {repeats: 0.5}\n")))
    check_mixture(chosen, ["vqa", "expert-A", "negatives"])
    assert mixture_of(["expert-A", "negatives", "vqa"], set(), chosen) == [
        {"path": "expert-A", "repeats": 0.5}, {"path": "negatives", "repeats": 1}, {"path": "vqa", "repeats": 3},
    ]  # fmt: skip
    with pytest.raises(RadioVLMError, match="unknown part 'expert-A'; parts are: vqa"):
        check_mixture(chosen, ["vqa"])
    weights = read_mixture(str(file(tmp_path, "vqa: {weight: 1}")))
    with pytest.raises(RadioVLMError, match="the part 'negatives' needs a weight, too"):
        check_mixture(weights, ["vqa", "negatives"])
    for text, words in (
        ("vqa: much", "repeats must be a number of at least 0"),
        ("vqa: {times: 2}", "one of repeats and weight"),
        ("vqa: {weight: 1}\nreports: 2", "some parts have 'repeats', others 'weight'"),
        ("[]", "expected lines such as"),
    ):
        with pytest.raises(RadioVLMError, match=words):
            read_mixture(str(file(tmp_path, text)))
    with pytest.raises(RadioVLMError, match="neither vila-m3 nor a file"):
        read_mixture("villa")
