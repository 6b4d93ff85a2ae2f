"""Silences one warning of transformers that is not true of our models; everything else it says is still heard."""

from __future__ import annotations

import logging

SOURCE = "transformers.integrations.hub_kernels"
WORDS = "falling back to its reference PyTorch implementation"


def hide_kernel_warnings() -> None:
    """For entry points. Warned of is code that our models replace; `radio-vlm inspect --kernels` lists what is used."""
    logging.getLogger(SOURCE).addFilter(_says_something_else)


def _says_something_else(record: logging.LogRecord) -> bool:
    return WORDS not in record.getMessage()
