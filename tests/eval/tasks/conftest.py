"""An expert on chest X-rays for the tests of tasks, gone after each: no other test shall see it."""

import pytest

from tests.helpers.xray_expert import XrayExpert
from vlm.experts import protocol


@pytest.fixture(autouse=True)
def xray_expert(monkeypatch):
    monkeypatch.setitem(protocol._EXPERTS, XrayExpert.card.name, XrayExpert)
