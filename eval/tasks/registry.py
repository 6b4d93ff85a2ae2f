"""Where tasks register: one class a benchmark, saying its prompt limits, metrics, controls and figures."""

from __future__ import annotations

from eval.registry import Registry
from eval.tasks.base import Task

tasks: Registry[type[Task]] = Registry("task")


def register_task(cls: type[Task]) -> type[Task]:
    """Class decorator: files a task under its own `name`."""
    return tasks.register(cls.name)(cls)
