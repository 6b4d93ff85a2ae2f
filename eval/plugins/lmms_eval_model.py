"""`--model radio_vlm` of lmms-eval 0.7.3: its questions, answered by our backend and our generator.

The answers are those of `eval/run.py` for the same messages: same encoding, sorting, halving on out of memory, greedy
decoding. The only file that imports lmms-eval; `lmms_eval.py` beside it is what lmms-eval loads first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages

from eval.backends import Decoding, Reply, open_backend
from eval.backends.base import Messages
from eval.generation import Generator, Request

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 1024  # where a task names no limit: as lmms-eval's own chat models
FILLER = "\n\n"  # lmms-eval puts it into `until` of every task that names none; no task of it means it
READ = {"max_new_tokens", "until", "do_sample", "temperature", "num_beams"}
EMPTY_OF_MEANING = {"top_p", "top_k"}  # in greedy decoding


class RadioVLM(lmms):
    """A chat model: it gets a task's messages, not a text with pictures beside it."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        max_frames: int | None = None,
        fps: float | None = None,
        pruning_rate: float | None = None,
        workers: int | None = None,
    ) -> None:
        """What `--model_args` says; names and meaning are those of `eval/run.py`, but for `pretrained` (its `--model`).

        Args:
            max_batch_size: lmms-eval passes it; there is no search for a batch size, out of memory halves it.

        Raises ValueError or OSError for what cannot be opened.
        """
        super().__init__()
        from accelerate import Accelerator

        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"radio_vlm: batch_size must be a number of questions, not {batch_size!r}")
        self.accelerator = Accelerator()  # lmms-eval shares out the questions and waits for all processes through it
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.batch_size = int(batch_size)
        several = self._world_size > 1
        backend = open_backend(
            str(pretrained), device=str(self.device) if several else device, dtype=dtype,
            trust_remote_code=trust_remote_code, pruning_rate=pruning_rate,
        )  # fmt: skip
        self.generator = Generator(backend, self.batch_size, progress=self._rank == 0, workers=workers)
        video = {"max_frames": max_frames, "fps": fps}
        self._video = {name: value for name, value in video.items() if value is not None}
        self._task_code = Lock()  # functions of tasks were written for one thread, ours encode in several

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """One answer per request, in their order; requests that are decoded alike share batches.

        A request that fails is answered with "" and named in the log, since lmms-eval knows no failed samples.

        Raises ValueError for a task that wants more than greedy decoding, RuntimeError where every request failed.
        """
        groups: dict[Decoding, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(decoding_of(request.args[2], request.args[4]), []).append(place)
        _name_what_is_left_out(requests)
        replies: dict[int, Reply] = {}
        for decoding, places in groups.items():
            asked = [self._request(requests[place].args) for place in places]
            label = ", ".join(dict.fromkeys(str(requests[place].args[4]) for place in places))
            replies |= zip(places, self.generator.answer(asked, decoding, label))
        self._report(requests, replies)
        return [
            GenerationResult(
                replies[place].text, TokenCounts(replies[place].prompt_tokens or None, replies[place].tokens)
            )
            for place in range(len(requests))
        ]

    def _request(self, args: tuple) -> Request:
        _, doc_to_messages, _, doc_id, task, split = args
        return Request(f"{task}/{split}/{doc_id}", partial(self._messages, doc_to_messages, task, split, doc_id))

    def _messages(self, doc_to_messages: Callable, task: str, split: str, doc_id: int) -> Messages:
        with self._task_code:
            given = doc_to_messages(self.task_dict[task][split][doc_id])
        return convert(ChatMessages(messages=given), self._video)

    def _report(self, requests: Sequence[Any], replies: dict[int, Reply]) -> None:
        failed = {place: reply.error for place, reply in replies.items() if reply.error}
        for place, error in failed.items():
            _, _, _, doc_id, task, split = requests[place].args
            logger.warning("radio_vlm: %s/%s/%s was not answered: %s", task, split, doc_id, error)
        if failed and len(failed) == len(requests):
            raise RuntimeError(f"radio_vlm: all {len(failed)} requests failed, the first with {failed[min(failed)]}")
        if failed:
            logger.warning(
                "radio_vlm: %d of %d requests failed; lmms-eval scores them as empty answers", len(failed), len(replies)
            )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError(
            "radio_vlm answers in words and lmms-eval asks chat models for words only; "
            "probabilities of answers: eval/run.py --likelihood"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("radio_vlm: tasks of several rounds are not supported; leave them out of --tasks")

    def clean(self) -> None:
        """Frees the model: lmms-eval calls this after the last answer, before a judge is loaded."""
        self.generator = None
        super().clean()


def decoding_of(gen_kwargs: dict[str, Any], task: str) -> Decoding:
    """What a task's `generation_kwargs` ask for.

    Raises ValueError for sampling and beams: an answer would depend on what else is in its batch.
    """
    samples = gen_kwargs.get("do_sample") is not False and float(gen_kwargs.get("temperature") or 0) > 0
    if samples or int(gen_kwargs.get("num_beams") or 1) > 1:
        raise ValueError(
            f"radio_vlm decodes greedily, task {task} asks for sampling or beams: {gen_kwargs}. "
            "Add --gen_kwargs temperature=0,do_sample=False,num_beams=1, and say so beside the score"
        )
    until = gen_kwargs.get("until") or []
    until = [until] if isinstance(until, str) else until
    stop = tuple(dict.fromkeys(text for text in until if text and text != FILLER))
    return Decoding(int(gen_kwargs.get("max_new_tokens") or MAX_NEW_TOKENS), stop)


def _name_what_is_left_out(requests: Sequence[Any]) -> None:
    unknown: dict[str, set[str]] = {}
    for request in requests:
        if names := {name for name, value in request.args[2].items() if value is not None} - READ - EMPTY_OF_MEANING:
            unknown.setdefault(str(request.args[4]), set()).update(names)
    for task, names in unknown.items():
        logger.warning("radio_vlm: generation_kwargs of %s without effect here: %s", task, ", ".join(sorted(names)))


def convert(chat: ChatMessages, video: dict[str, Any]) -> Messages:
    """lmms-eval's messages as ours; `video` (max_frames, fps) goes to every video.

    Raises ValueError for sound.
    """
    return [
        {"role": message.role, "content": [_item(item, video) for item in message.content]} for message in chat.messages
    ]


def _item(item: Any, video: dict[str, Any]) -> dict[str, Any]:
    if item.type == "text":
        return {"type": "text", "text": item.text}
    if item.type == "image":
        return {"type": "image", "image": _picture(item.url)}
    if item.type == "video":
        return {"type": "video", **_clip(item, video)}
    raise ValueError(f"radio_vlm: the task shows {item.type}; the model sees images and videos only")


def _picture(source: Any) -> Any:
    """A picture already opened goes through the same door as a file: upright, 8-bit RGB, bounded in size."""
    from PIL import Image

    from vlm.media.image import load_image

    return load_image(source) if isinstance(source, Image.Image) else source


def _clip(item: Any, video: dict[str, Any]) -> dict[str, Any]:
    source, start, end = item.url, item.start_time, item.end_time
    if isinstance(source, dict):  # a task's {"video": path, "video_start": …, "video_end": …}
        start, end = source.get("video_start", start), source.get("video_end", end)
        source = next((source[key] for key in ("video", "url", "path") if source.get(key) is not None), None)
    if not isinstance(source, str):  # frames: no clock to cut or sample by
        return {"video": source, **{name: value for name, value in video.items() if name == "max_frames"}}
    cut = {name: float(value) for name, value in (("start", start), ("end", end)) if value is not None}
    return {"video": source, **video, **cut}
