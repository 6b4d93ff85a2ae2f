"""What happened in conversations with experts: one call as an object, and as a line of a log that names no patient.

The log is JSON lines. An image is named by the digest of its file, never by its path; of a reply only the call is kept.
Texts come here with identifiers already taken out (`vlm.experts.private_text`).
"""

import json
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm.experts.image_facts import file_digest
from vlm.experts.protocol import ExpertResult

logger = logging.getLogger(__name__)


@dataclass
class ExpertCall:
    """One call: what the model wrote, what was run on which file, what came back.

    `seconds` is the whole call, `expert_seconds` the expert's own run in it. `overlay` is the image that was fed back.
    """

    trigger: str
    name: str
    arguments: tuple[str, ...]
    file: str | None = field(repr=False)
    ok: bool
    text: str
    seconds: float
    result: ExpertResult | None = None
    expert_seconds: float = 0.0
    overlay: Any | None = None

    def as_json(self) -> dict[str, Any]:
        """The call without mask and overlay, for result files. `file` is the digest of what was read, not its path:
        whoever may know the path has it in `ExpertCall.file`."""
        row = {key: value for key, value in vars(self).items() if key not in ("result", "overlay")}
        return row | {"arguments": list(self.arguments), "file": file_digest(self.file)}


class CallLog:
    """Appends to a file of JSON lines. Raises OSError at once where the file cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        with open(self.path, "a", encoding="utf-8"):
            pass

    def write(self, event: str, **fields: Any) -> None:
        """One line: `time` (UTC), `event`, and the fields. A disk that fills up costs lines, not the conversation."""
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        line = json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n"
        try:
            with self._lock, open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            logger.warning("cannot write the log of expert calls: %s", error.strerror)
