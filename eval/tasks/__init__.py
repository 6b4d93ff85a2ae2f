"""Tasks, one file each. `get_task("synthetic_documents")` returns the task class."""

from __future__ import annotations

from eval.registry import discover
from eval.tasks.base import Task
from eval.tasks.registry import register_task, tasks

discover(__name__, __path__)
get_task = tasks.get

__all__ = ["Task", "get_task", "register_task", "tasks"]
