"""A stage keeps its log from the root logger; tests that read what is logged need it there."""

import logging

import pytest


@pytest.fixture(autouse=True)
def training_logs_are_seen(monkeypatch):
    monkeypatch.setattr(logging.getLogger("training"), "propagate", True)
