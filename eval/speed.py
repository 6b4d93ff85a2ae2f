"""How fast a model answered, from the seconds and tokens that a results file keeps for every task.

Prefill ends with the first new token of a batch and holds the vision encoder; decode is the rest of `generate`. Media
are read and encoded by other threads beside the model, so `encode_seconds` are work done, not time waited for.
With several processes all seconds are summed: rates are those of one process, seconds a question those of all together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


@dataclass(frozen=True)
class Speed:
    """Rates of one task; None where the backend did not say what is needed."""

    requests: int
    """Prompts answered, controls included, answers of an earlier run (resume) not."""
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    """New tokens / seconds after the first one. An answer's first token falls into prefill and its end token into
    decode, so for answers that ended by themselves the tokens counted are those made in that time."""
    encode_share: float | None
    """Seconds of reading and encoding / (these + seconds of generating)."""
    prompt_tokens_per_request: float | None
    media_tokens_per_request: float | None
    new_tokens_per_request: float | None
    seconds_per_request: float | None
    encode_seconds: float
    prefill_seconds: float
    decode_seconds: float
    """All of `generate` where prefill was not measured."""
    media_tokens_per_image: float | None = None
    media_tokens_per_video: float | None = None

    @property
    def prefill_known(self) -> bool:
        return self.prefill_seconds > 0


def speed_of(about: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = ()) -> Speed:
    """The rates of a task.

    Args:
        about: `provenance.tasks[key]` of a results file.
        rows: the task's rows, for the tokens of one image or video; prompts that mix both are left out there.
    """
    number = {name: float(about.get(name) or 0) for name in _NAMES}
    requests = int(number["requests"])
    decode = max(number["generate_seconds"] - number["prefill_seconds"], 0.0)
    measured = number["prefill_seconds"] > 0
    images, videos = _tokens_by_medium(rows)
    return Speed(
        requests=requests,
        prefill_tokens_per_second=_quotient(number["prompt_tokens"], number["prefill_seconds"]),
        decode_tokens_per_second=_quotient(number["new_tokens"], decode) if measured else None,
        encode_share=_quotient(number["encode_seconds"], number["encode_seconds"] + number["generate_seconds"]),
        prompt_tokens_per_request=_quotient(number["prompt_tokens"], requests),
        media_tokens_per_request=_quotient(number["media_tokens"], requests),
        new_tokens_per_request=None if not requests else number["new_tokens"] / requests,
        seconds_per_request=_quotient(number["seconds"], requests),
        encode_seconds=number["encode_seconds"],
        prefill_seconds=number["prefill_seconds"],
        decode_seconds=decode,
        media_tokens_per_image=images,
        media_tokens_per_video=videos,
    )


def speed_line(speed: Speed) -> str:
    """`0.021 s a question · prefill 3 120 tokens/s · decode 410 tokens/s · …`; what is unknown is left out."""
    parts = []
    if speed.seconds_per_request is not None:
        parts.append(f"{speed.seconds_per_request:.2g} s a question")
    if speed.prefill_tokens_per_second is not None:
        parts.append(f"prefill {_count(speed.prefill_tokens_per_second)} tokens/s")
    if speed.decode_tokens_per_second is not None:
        parts.append(f"decode {_count(speed.decode_tokens_per_second)} tokens/s")
    if speed.encode_share is not None:
        parts.append(f"encoding {100 * speed.encode_share:.0f} % of the work")
    for name, value in (("image", speed.media_tokens_per_image), ("video", speed.media_tokens_per_video)):
        if value is not None:
            parts.append(f"{_count(value)} tokens per {name}")
    return " · ".join(parts)


_NAMES = (
    *("requests", "prompt_tokens", "media_tokens", "new_tokens"),
    *("encode_seconds", "prefill_seconds", "generate_seconds", "seconds"),
)


def _tokens_by_medium(rows: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Media tokens per image and per video, each over prompts that hold nothing but that kind."""
    tokens, items = {"image": 0, "video": 0}, {"image": 0, "video": 0}
    for row in rows:
        kinds = ["video" if str(path).lower().endswith(_VIDEO_SUFFIXES) else "image" for path in row.get("media") or []]
        if row.get("media_tokens") and len(set(kinds)) == 1 and not row.get("error"):
            tokens[kinds[0]] += row["media_tokens"]
            items[kinds[0]] += len(kinds)
    return _quotient(tokens["image"], items["image"]), _quotient(tokens["video"], items["video"])


def _quotient(value: float, by: float) -> float | None:
    return value / by if value and by else None


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")
