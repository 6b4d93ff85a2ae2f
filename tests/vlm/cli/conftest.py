"""Commands quieten the libraries for the terminal; other tests must not inherit that."""

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
