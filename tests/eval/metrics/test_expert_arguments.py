"""Arguments of an expert call: judged by the experts' own grammar."""

import pytest

from eval.metrics import get_metric
from eval.metrics.expert_arguments import wanted_trigger
from vlm.experts.protocol import Trigger, TriggerError

arguments = get_metric("expert_arguments")


@pytest.mark.parametrize(
    "reply, wanted, score",
    [
        ("<CXR(edema)>", ["<CXR(edema)>"], 1.0),
        ("Let me look: <CXR( edema , effusion )>.", ["<CXR(effusion, edema)>"], 1.0),
        ("<CXR()>", ["CXR"], 1.0),
        ("<CXR(edema)>", ["<CXR(mass)>", "<CXR(edema)>"], 1.0),
        ("<CXR(mass)>", ["<CXR(edema)>"], 0.0),
        ("<CXR()>", ["<CXR(edema)>"], 0.0),
        ("<CXR(edema, edema)>", ["<CXR(edema)>"], 0.0),
        ("<CT(edema)>", ["<CXR(edema)>"], 0.0),
        ("<CXR(edema", ["<CXR(edema)>"], 0.0),
        ("<CXR(edema)><CXR(edema)>", ["<CXR(edema)>"], 0.0),
        ("edema", ["<CXR(edema)>"], 0.0),
        ("<CXR(edema)>", [], 0.0),
    ],
)
def test_decisions(reply, wanted, score):
    assert arguments(reply, wanted) == score


def test_gold_calls():
    assert wanted_trigger("<CXR(a, b)>") == Trigger("CXR", ("a", "b"))
    assert wanted_trigger("CXR") == Trigger("CXR")
    assert wanted_trigger(None) is wanted_trigger(" ") is None
    with pytest.raises(TriggerError):
        wanted_trigger("<cxr(a)>")
