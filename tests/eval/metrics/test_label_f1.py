"""Labels of one sample: what is read, what is invalid, and F1 between sets."""

import pytest

from eval.metrics import get_metric
from eval.metrics.label_f1 import read_labels

label_f1 = get_metric("label_f1")
FINDINGS = ["Edema", "Effusion", "Pleural_Thickening", "Mass and Nodule"]


@pytest.mark.parametrize(
    "text, labels",
    [
        ("Edema, effusion.", {"edema", "effusion"}),
        ("Edema|Pleural_Thickening", {"edema", "pleural thickening"}),
        ("pleural thickening; Edema\nedema", {"edema", "pleural thickening"}),
        ("Edema and effusion", {"edema", "effusion"}),
        ("Mass and Nodule, Edema", {"mass and nodule", "edema"}),
        ('["Edema", "Effusion"]', {"edema", "effusion"}),
        ("No finding.", set()),
        ("none", set()),
        ("", None),
        ("The image shows edema.", None),
        ("Edema, pneumonia", None),
        (", ;", None),
        ("[" * 5000, None),
    ],
)
def test_reading(text, labels):
    assert read_labels(text, FINDINGS) == labels


def test_reading_without_known_labels_and_of_single_labels():
    assert read_labels("Edema, Pneumonia") == {"edema", "pneumonia"}
    assert read_labels("No Finding", ["No Finding", "Edema"]) == {"no finding"}
    assert read_labels("Edema", FINDINGS, multi_label=False) == {"edema"}
    assert read_labels("Edema, Effusion", FINDINGS, multi_label=False) is None
    assert read_labels("none", FINDINGS, multi_label=False) is None


@pytest.mark.parametrize(
    "answer, gold, score",
    [
        ("Edema, Effusion", ["Edema", "Effusion"], 1.0),
        ("Edema", ["Edema|Effusion"], 2 / 3),
        ("Edema", ["Effusion"], 0.0),
        ("none", ["No finding"], 1.0),
        ("none", [], 1.0),
        ("Edema", ["No finding"], 0.0),
        ("none", ["Edema"], 0.0),
        ("who knows", ["No finding"], 0.0),  # unreadable is not "none"
    ],
)
def test_scores(answer, gold, score):
    assert label_f1(answer, gold, labels=FINDINGS) == pytest.approx(score)
    assert label_f1(answer, gold, labels=FINDINGS, exact=True) == float(score == 1.0)


def test_single_labels_have_alternatives():
    assert label_f1("AP", ["PA"], ["AP", "PA"], multi_label=False) == 0.0
    assert label_f1("ap.", ["PA", "AP"], ["AP", "PA"], multi_label=False) == 1.0


def test_a_gold_label_that_is_not_offered_is_an_error():
    with pytest.raises(ValueError, match="gold label 'Hernia' is not among"):
        label_f1("Edema", ["Hernia"], labels=FINDINGS)
