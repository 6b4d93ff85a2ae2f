"""MLVU, test set: nine kinds of task, up to six options; as `mlvu`, and the prompt is the question alone.

As lmms-eval's `mlvu_test`, which reads only the letters A to D from an answer and so counts every E and F as wrong; the
figure under its rule here reads all letters that the question has.
"""

from __future__ import annotations

from eval.sources import Source
from eval.tasks.mlvu import MLVU
from eval.tasks.registry import register_task


@register_task
class MLVUTest(MLVU):
    name = "mlvu_test"
    source = Source("sy1998/MLVU_Test", split="test")
    prompt = "{question}"
