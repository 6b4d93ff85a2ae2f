"""The images of a labelled set as items of a message: converted once, kept below `images/`, named by their content.

For training a DICOM file becomes a PNG through its own window, and a volume some slices, as they are in a prompt. The
PNG holds pixels alone, so its item states the modality. Where experts must still read the file (val and test; files
also with `--originals`) a copy without identifiers is kept instead (`plain_headers.py`). Training knows no volumes, so
those are slices there in any case.
"""

import hashlib
import io
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.data.expert_dialogues.labelled_set import LabelledImage
from training.data.expert_dialogues.plain_headers import plain_copy, plain_tree
from vlm.experts.image_facts import SILENT, image_facts
from vlm.media.image import is_dicom, load_image
from vlm.prompt_volumes import expand_volumes

FOLDER = "images"
Items = list[dict[str, Any]]


def content_digest(path: Path) -> str:
    """20 hex digits of the SHA-256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    for file in files:
        if file != path:
            digest.update(f"{file.relative_to(path)}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:20]


def image_modality(image: LabelledImage) -> str | None:
    """The header's modality; where it is silent, the one that the labelled set states. None: neither says."""
    facts = image_facts(image.path)
    return image.modality if facts.modality is None and facts.kind.startswith(SILENT) else facts.modality


def image_items(image: LabelledImage, digest: str, out: Path, cache: Path, originals: Collection[str]) -> Items:
    """The items that show an image, with paths relative to `out`; what is there already is not made again.

    originals: which of image and volume are copied as they are.

    Raises SampleError for an image that cannot be read.
    """
    modality = image_modality(image)
    known = cache / f"{digest}-{'original' if image.kind in originals else 'picture'}-{modality or 'none'}-{image.kind}.json"
    if known.is_file():
        items = json.loads(known.read_text(encoding="utf-8"))
        if all((out / item[item["type"]]).exists() for item in items if item["type"] != "text"):
            return items
    make = _original if image.kind in originals else _picture
    items = make(image, digest, out, modality)
    write_whole(known, json.dumps(items, ensure_ascii=False).encode())
    return items


def item_files(items: Items) -> list[str]:
    """The files and folders that items name."""
    return [item[item["type"]] for item in items if item["type"] != "text"]


def _original(image: LabelledImage, digest: str, out: Path, modality: str | None) -> Items:
    path = image.path
    if image.kind == "image" and not is_dicom(path):
        return _picture(image, digest, out, modality)  # nothing but pixels is in it
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        name = f"{FOLDER}/{digest}"
        partial = out / f"{name}.{os.getpid()}.partial"
        plain_tree(path, partial)
        _put(partial, out / name)
    else:
        name = f"{FOLDER}/{digest}{'.dcm' if is_dicom(path) else '.nii.gz'}"
        plain_copy(path, out / name)
    stated = {} if image_facts(path).modality or not modality else {"modality": modality}
    return [{"type": image.kind, image.kind: name, **stated}]


def _picture(image: LabelledImage, digest: str, out: Path, modality: str | None) -> Items:
    stated = {"modality": modality} if modality else {}
    if image.kind == "image":
        return [{"type": "image", "image": _save(load_image(image.path), out, digest), **stated}]
    volume = {"type": "volume", "volume": str(image.path)}
    if image.modality:
        volume["modality"] = image.modality
    shown = expand_volumes([{"role": "user", "content": [volume]}])[0]["content"]
    items, number = [], 0
    for item in shown:
        if item["type"] == "image":
            number += 1
            item = {"type": "image", "image": _save(item["image"], out, f"{digest}-{number:02d}"), **stated}
        items.append(item)
    return items


def _save(picture: Image.Image, out: Path, name: str) -> str:
    """Pixels alone: what a picture carries beside them (EXIF, comments, profiles) is left behind."""
    pixels = np.asarray(picture)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # grey is a third of the bytes
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    file = f"{FOLDER}/{name}.png"
    write_whole(out / file, buffer.getvalue())
    return file


def write_whole(path: Path, content: bytes) -> None:
    """A file is there whole or not at all, whatever ends the program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _put(partial: Path, target: Path) -> None:
    import shutil

    if target.exists():  # another process was first
        shutil.rmtree(partial)
    else:
        os.replace(partial, target)
