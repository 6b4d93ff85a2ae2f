"""The part of lmms-eval 0.7.3 that the plug-in touches, as modules of the same names and fields.

lmms-eval needs an environment of its own (tests/check/lmms_environment.py); the plug-in's own logic does not.
`tests/check/lmms_numbers.py` runs the real one.
"""

import abc
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any


class lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    def clean(self) -> None:
        self.cleaned = True


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class ChatMessages:
    """Typed messages; a part of unknown kind is refused, as pydantic does it there."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = [
            SimpleNamespace(role=message["role"], content=[self._part(**part) for part in message["content"]])
            for message in messages
        ]

    @staticmethod
    def _part(type: str, text: str = "", url: Any = None, start_time=None, end_time=None) -> SimpleNamespace:
        assert type in ("text", "image", "video", "audio")
        return SimpleNamespace(type=type, text=text, url=url, start_time=start_time, end_time=end_time)


@dataclass
class Instance:
    """A request of a chat model: `args` has six parts."""

    arguments: tuple
    resps: list = field(default_factory=list)

    @property
    def args(self) -> tuple:
        return self.arguments


def instance(doc_to_messages, gen_kwargs: dict, doc_id: int, task: str = "task", split: str = "test") -> Instance:
    return Instance(("context", doc_to_messages, gen_kwargs, doc_id, task, split))


def install(monkeypatch) -> None:
    """Puts the modules into `sys.modules` for one test, and takes the plug-in out so that it is imported anew."""
    content = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult, "TokenCounts": TokenCounts},
        "lmms_eval.protocol": {"ChatMessages": ChatMessages},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, values in content.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "eval.plugins.lmms_eval_model", raising=False)
