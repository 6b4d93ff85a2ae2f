"""A folder of images with true answers, as a researcher has it: `images.jsonl`, one image a line, or a table.

    {"id": "ct-12", "image": "dicom/12.dcm", "patient": "P7", "labels": {"number": 2, "side": "left"},
     "qa": [{"question": "Table?", "answer": "yes", "kind": "table"}], "report": "...", "split": "train"}

`volume` (a folder of slices, or a file) stands in place of `image`; `modality` only where the header is silent. Tables
are read by `table_sets.py`. Whatever is wrong is said with file and line before any expert runs; what stands there
(ids, names of files, words) may name a patient and is not repeated: messages end up in the logs of jobs.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.synthetic.registry import SPLITS
from training.data.synthetic.split_hash import split_of
from vlm.errors import RadioVLMError, SampleError
from vlm.experts.trigger import TriggerError, parse_trigger
from vlm.media.inside import check_inside

FILE = "images.jsonl"
KEYS = ("id", "image", "volume", "modality", "patient", "labels", "qa", "report", "split")
QA_KEYS = ("question", "answer", "kind")


class LabelledSetError(RadioVLMError):
    """A labelled set that cannot be used; the message names file and line."""


@dataclass(frozen=True)
class Question:
    """A question that needs no expert, with its true answer."""

    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class LabelledImage:
    """One image or volume and what is known of it.

    number: its place in the list, from 1, which is all that is told of it in what is written; where: file and line for
    messages to the user; patient: the user's own word for the patient, which leaves as a number only; labels: true
    answers by topic, as text.
    """

    number: int
    where: str
    path: Path
    kind: str
    patient: str
    split: str
    modality: str | None
    labels: dict[str, str]
    qa: tuple[Question, ...] = ()
    report: str | None = None


def read_labelled_set(folder: str | Path) -> list[LabelledImage]:
    """All images of a folder, of all splits. Raises `LabelledSetError`."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise LabelledSetError(f"{folder}: no such folder")
    if (folder / FILE).is_file():
        rows = _lines(folder / FILE)
    else:
        from training.data.expert_dialogues.table_sets import table_rows

        rows = table_rows(folder)
    images, seen = [], {}
    for number, (where, row) in enumerate(rows, start=1):
        image = labelled_image(folder, number, where, row)
        name = row.get("id")
        if name is not None and seen.setdefault(str(name), where) != where:
            raise LabelledSetError(f"{where}: its id stands at {seen[str(name)]} already")
        images.append(image)
    if not images:
        raise LabelledSetError(f"{folder}: no images are listed")
    check_patients(images)
    return images


def check_patients(images: list[LabelledImage]) -> None:
    """Refuse a patient, or a file, in two splits: the model would be tested on what it was trained on."""
    for what in ("patient", "path"):
        first: dict[Any, LabelledImage] = {}
        for image in images:
            known = first.setdefault(getattr(image, what), image)
            if known.split != image.split:
                thing = "patient" if what == "patient" else "file"
                raise LabelledSetError(
                    f"{image.where}: its {thing} is in the split {image.split} here and in {known.split} at "
                    f"{known.where}; a {thing} belongs to one split"
                )


def patient_numbers(images: list[LabelledImage]) -> dict[str, str]:
    """Patient -> a name that says nothing: counted in the order of the whole set, the same for every split."""
    return {name: f"patient-{number:06d}" for number, name in enumerate(dict.fromkeys(i.patient for i in images), 1)}


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise LabelledSetError(f"{where}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise LabelledSetError(f"{where}: a line is an object with keys, this is {type(row).__name__}")
            yield where, row


def labelled_image(folder: Path, number: int, where: str, row: dict[str, Any]) -> LabelledImage:
    """One line, checked. Raises `LabelledSetError` naming `where`."""

    def wrong(message: str) -> LabelledSetError:
        return LabelledSetError(f"{where}: {message}")

    row = {key: value for key, value in row.items() if value is not None}
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise wrong("half a character (a lone surrogate such as \\ud83d), which no file can hold") from None
    if unknown := [key for key in row if key not in KEYS]:
        raise wrong(f"unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    kinds = [kind for kind in ("image", "volume") if kind in row]
    if len(kinds) != 1:
        raise wrong("an image needs one of 'image' and 'volume'")
    kind = kinds[0]
    path = inside(folder, row[kind], kind, wrong)
    if kind == "image" and path.is_dir():
        raise wrong("its 'image' is a folder; a series is a 'volume'")
    patient = row.get("patient")
    if not isinstance(patient, str | int) or not str(patient).strip():
        raise wrong("'patient' is missing: it keeps a patient out of two splits; any word will do")
    labels = row.get("labels", {})
    if not isinstance(labels, dict):
        raise wrong("'labels' must be an object, e.g. {\"number\": 2}")
    split = row.get("split", split_of(str(patient)))
    if split not in SPLITS:
        raise wrong(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    report, modality = row.get("report"), row.get("modality")
    if report is not None and not isinstance(report, str):
        raise wrong("'report' must be text")
    if modality is not None and not isinstance(modality, str):
        raise wrong("'modality' must be text such as CT")
    return LabelledImage(
        number, where, path, kind, str(patient), split, _modality(modality, wrong),
        {name: label_text(value, name, wrong) for name, value in labels.items() if value is not None},
        _questions(row.get("qa", []), wrong), no_call(report.strip(), "report", wrong) or None if report else None,
    )  # fmt: skip


def inside(folder: Path, name: Any, kind: str, wrong) -> Path:
    """The path of a file or folder that is there, below `folder`; links are followed before that is decided."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise wrong(f"its {kind!r} is no path")
    root, path = os.path.realpath(folder), os.path.realpath(folder / name)
    if not path.startswith(root.rstrip(os.sep) + os.sep):
        raise wrong(f"its {kind!r} leaves the folder {folder}")
    if not os.path.exists(path):
        raise wrong(f"its {kind!r} does not exist in {folder}")
    try:
        check_inside(path, root)
    except SampleError as error:
        raise wrong(f"its {kind!r}: {error.message}") from None
    return Path(path)


def no_call(text: str, what: str, wrong) -> str:
    """`text`, which a model shall learn to say, unless it reads as the call of an expert."""
    try:
        call = parse_trigger(text) is not None
    except TriggerError:
        call = True
    if call:
        raise wrong(f"the {what} reads as the call of an expert, <NAME(...)>: a model would learn to call it")
    return text


def label_text(value: Any, name: str, wrong) -> str:
    """A true answer as text: yes or no for booleans, plain digits for numbers."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return f"{value:.10g}"
    if isinstance(value, str) and value.strip():
        return no_call(value.strip(), "answer", wrong)
    raise wrong(f"the label {name!r} must be true, false, a number or text, not {_said(value)}")


def _said(value: Any) -> str:
    """What stands there, without its words."""
    return "empty text" if isinstance(value, str) else repr(value) if isinstance(value, float) else type(value).__name__


def _modality(word: str | None, wrong) -> str | None:
    from vlm.media.modality import MODALITIES, normal_modality

    if word is None:
        return None
    if not (code := normal_modality(word)):
        raise wrong(f"unknown modality {word!r:.40}; known: {', '.join(MODALITIES)}")
    return code


def _questions(rows: Any, wrong) -> tuple[Question, ...]:
    if not isinstance(rows, list):
        raise wrong('\'qa\' must be a list of {"question", "answer"}')
    questions = []
    for row in rows:
        if not isinstance(row, dict) or (unknown := [key for key in row if key not in QA_KEYS]):
            problem = f"unknown key {unknown[0]!r}" if isinstance(row, dict) else "an entry is no object"
            raise wrong(f"in 'qa': {problem}; known: {', '.join(QA_KEYS)}")
        question, kind = row.get("question"), row.get("kind", "qa")
        if not isinstance(question, str) or not question.strip() or row.get("answer") is None:
            raise wrong("in 'qa': an entry needs 'question' and 'answer'")
        if not isinstance(kind, str):
            raise wrong("in 'qa': 'kind' must be text")
        questions.append(Question(question, label_text(row["answer"], "answer", wrong), kind))
    return tuple(questions)
