"""Commands quieten the libraries for the terminal; other tests must not inherit that. And check-data as a call."""

import json
import logging

import pytest


@pytest.fixture(autouse=True)
def libraries_as_loud_as_before():
    from transformers.utils import logging as library

    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    filters = list(logging.getLogger("DeepSpeed").filters)
    yield
    library.set_verbosity(verbosity)
    (library.enable_progress_bar if bars else library.disable_progress_bar)()
    logging.getLogger("DeepSpeed").filters[:] = filters


@pytest.fixture
def check_data(tmp_path, capsys, monkeypatch):
    """check_data(arguments...) -> (exit code, printed text, JSON report); every model is the tiny processor."""
    from tests.helpers.tiny_processor import tiny_processor
    from vlm.cli import loading
    from vlm.cli.main import main

    monkeypatch.setattr(loading, "load_processor", lambda name: tiny_processor())

    def call(*arguments):
        file = tmp_path / "report.json"
        code = main(["check-data", *map(str, arguments), "--json", str(file)])
        return code, capsys.readouterr().out, json.loads(file.read_text())

    return call
