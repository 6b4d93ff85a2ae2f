"""Where lmms-eval finds our model: the entry point `lmms_eval.models` of setup.cfg names `manifests`.

lmms-eval reads every such entry point when it starts, so this file imports nothing heavy; the model itself is in
`lmms_eval_model.py`, the only file that needs lmms-eval.
"""

from __future__ import annotations

from typing import Any


def manifests() -> Any:
    """The `ModelManifest` of `--model radio_vlm`. Called by lmms-eval 0.7.3 and later."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("radio_vlm", chat_class_path="eval.plugins.lmms_eval_model.RadioVLM")
