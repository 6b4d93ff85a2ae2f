"""Question-and-answer label files -> LLaVA JSON, divided into a training and a held-out part: the way in for real data.

Reads a `labels.jsonl` of {"id", "image", "video", "document" or "volume", "question", "answers" or "answer",
"options"?, ...} (or anything else that `open_source` reads) and writes

    OUT/train/train.json     LLaVA JSON for training
    OUT/test/records.jsonl   held-out questions as evaluation reads them (with dataset.json)
    OUT/*/<media>            copies (or hard links) of the media, since paths may not leave a data folder

    python -m training.data.convert labels.jsonl OUT [--test-share 0.25] [--seed 0] [--task NAME]

All questions on one picture go to the same part; which, is decided by a hash of the picture's path and the seed.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.sample import MEDIA_TYPES, Sample
from training.data.sources import DataError, open_source
from vlm.errors import SampleError

logger = logging.getLogger(__name__)
# Names of metrics in label files -> names in eval/metrics.
METRICS = {"relaxed": "relaxed_accuracy", "exact": "exact_match"}
LLAVA_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}


def convert(
    path: str | Path, out: str | Path, test_share: float = 0.25, seed: int = 0, task: str | None = None
) -> Counter:
    """Writes OUT/train and OUT/test; returns the number of samples of each, and of those skipped.

    task: the task name of the held-out records; default: the name of the folder the labels are in.
    Raises DataError when the target holds something or a part would be empty.
    """
    source, out = open_source(path), Path(out)
    if not 0 <= test_share < 1:
        raise DataError(f"test_share must be at least 0 and below 1, this is {test_share}")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty")
    task = task or (source.path if source.path.is_dir() else source.path.absolute().parent).name
    samples, counts = [], Counter()
    for index in range(len(source)):
        try:
            samples.append(with_plain_paths(source[index]))
        except SampleError as error:
            logger.warning("skipped: %s", error)
            counts["skipped"] += 1
    held_out = held_out_groups({group_of(sample) for sample in samples}, test_share, seed)
    parts = {
        "train": [sample for sample in samples if group_of(sample) not in held_out],
        "test": [sample for sample in samples if group_of(sample) in held_out],
    }
    if not parts["train"]:
        raise DataError(f"{path} leaves nothing to train on ({len(samples)} usable samples, test_share {test_share})")
    counts.update({part: len(members) for part, members in parts.items()})
    for part, samples in parts.items():
        if samples:
            copy_media(samples, out / part)
    write_llava(parts["train"], out / "train" / "train.json")
    if parts["test"]:
        write_records(parts["test"], out / "test", task, seed)
    return counts


def with_plain_paths(sample: Sample) -> Sample:
    """The sample with every medium as a path below its data folder, written in one way: absolute paths, `..` and links
    would lead out of the copy, and two spellings of one picture could stand in both parts. Raises SampleError.
    """

    def plain(item: dict[str, Any]) -> dict[str, Any]:
        kind = item["type"]
        if kind not in MEDIA_TYPES:
            return item
        found = sample.resolve(item[kind], kind)
        if isinstance(found, dict):
            return {**item, kind: {channel: below(file) for channel, file in found.items()}}
        return {**item, kind: below(found)}

    def below(file: Any) -> str:
        if not isinstance(file, str):
            message = "a picture held in the dataset itself is no file to copy: train on it as it is"
            raise sample.error(message, "no_file")
        return os.path.relpath(file, os.path.realpath(sample.base_dir))

    messages = [{**m, "content": [plain(item) for item in m["content"]]} for m in sample.messages]
    return replace(sample, messages=messages)


def group_of(sample: Sample) -> str:
    """What may not be in both parts: the first medium's path (the id of a sample without media)."""
    return next((str(reference) for _, reference in sample.media()), sample.id)


def held_out_groups(groups: set[str], test_share: float, seed: int) -> set[str]:
    """The groups of the test part: the first in the order of a hash; at least one when there is a share at all."""
    ordered = sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    wanted = max(1, round(test_share * len(groups))) if test_share else 0
    return set(ordered[:wanted])


def copy_media(samples: list[Sample], out: Path) -> None:
    """Every medium under the same relative path below `out`; a hard link where the file system has them."""
    for sample in samples:
        for kind, references in sample.media():
            for reference in references.values() if isinstance(references, dict) else [references]:
                target, file = out / reference, sample.resolve(reference, kind)
                if target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if os.path.isdir(file):
                    shutil.copytree(file, target, copy_function=_link)
                else:
                    _link(file, target)


def _link(file: str, target: str | Path) -> None:
    try:
        os.link(os.path.realpath(file), target)
    except OSError:
        shutil.copyfile(file, target)


def write_llava(samples: list[Sample], path: Path) -> None:
    """LLaVA JSON: a tag for each medium in the text, the media listed beside it, everything else kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [llava_record(sample) for sample in samples]
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def llava_record(sample: Sample) -> dict[str, Any]:
    turns = []
    for message in sample.messages:
        text = ""
        for item in message["content"]:
            text += item["text"] if item["type"] == "text" else f"<{item['type']}>\n"
        turns.append({"from": LLAVA_ROLES.get(message["role"], message["role"]), "value": text})
    record: dict[str, Any] = {"id": sample.id}
    for kind in MEDIA_TYPES:
        references = [_reference(item) for item in sample.media_items() if item["type"] == kind]
        if references:
            record[kind] = references[0] if len(references) == 1 else references
    return record | {"conversations": turns, "meta": sample.meta}


def _reference(item: dict[str, Any]) -> Any:
    """A medium as a record lists it: its path, or the item where it says more (the pages of a document)."""
    more = {key: value for key, value in item.items() if key != "type"}
    return more if len(more) > 1 else item[item["type"]]


def write_records(samples: list[Sample], out: Path, task: str, seed: int) -> None:
    """A dataset folder in the messages format: records.jsonl, dataset.json."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "records.jsonl").open("w", encoding="utf-8") as file:
        for sample in samples:
            metric = sample.meta.get("metric")
            meta = {"task": task, "kind": metric or task, "group": group_of(sample)} | sample.meta
            if metric in METRICS:
                meta["metric"] = METRICS[metric]
            record = {"id": sample.id, "source": task, "messages": sample.messages, "meta": meta}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    header = {"name": task, "task": task, "split": "test", "seed": seed, "n": len(samples)}
    (out / "dataset.json").write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("labels", type=Path, help="label file or dataset")
    parser.add_argument("out", type=Path, help="folder to write; must be empty")
    parser.add_argument("--test-share", type=float, default=0.25, help="share of the pictures held out (default: 0.25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", help="task name of the held-out records (default: the labels' folder)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = convert(args.labels, args.out, args.test_share, args.seed, args.task)
    logger.info("%s: %s", args.out, ", ".join(f"{number} {part}" for part, number in counts.items()))


if __name__ == "__main__":
    main()
