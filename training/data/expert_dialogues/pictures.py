"""The images of a labelled set as items of a message: converted once, kept below `images/`, named by their content.

For training a DICOM file becomes a PNG through its own window, and a volume some slices, as they are in a prompt. The
PNG holds pixels alone, so its item states the modality. Where experts must still read the file (val and test, and
with `--originals`) a copy without identifiers is kept instead (`plain_headers.py`).
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.data.expert_dialogues.labelled_set import LabelledImage
from training.data.expert_dialogues.plain_headers import plain_copy, plain_tree
from training.data.expert_dialogues.volume_views import named_volumes, volume_views
from vlm.experts.image_facts import image_facts, modality_of_file
from vlm.media.image import is_dicom, load_image

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
    return modality_of_file(image.path, image.modality)


def image_items(image: LabelledImage, digest: str, out: Path, cache: Path, originals: bool) -> Items:
    """The items that show an image, with paths relative to `out`; what is there already is not made again.

    Raises SampleError for an image that cannot be read.
    """
    modality = image_modality(image)
    known = cache / f"{digest}-{'original' if originals else 'picture'}-{modality or 'none'}-{image.kind}.json"
    if known.is_file():
        items = json.loads(known.read_text(encoding="utf-8"))
        if all((out / file).exists() for item in items for file in item_files(item)):
            return items
    make = _original if originals else _picture
    items = make(image, digest, out, modality)
    write_whole(known, json.dumps(items, ensure_ascii=False).encode())
    return items


def item_files(item: dict[str, Any]) -> list[str]:
    """The files and folders that an item names: what is shown, and what experts read in its place."""
    return [item[key] for key in (item["type"], "source") if key != "text" and key in item]


def _original(image: LabelledImage, digest: str, out: Path, modality: str | None) -> Items:
    if image.kind == "image" and not is_dicom(image.path):
        return _picture(image, digest, out, modality)  # nothing but pixels is in it
    if image.kind == "image":
        load_image(image.path)  # raises for what no model could be shown, which a copy would not notice
    else:
        volume_views(image)
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    stated = {} if image_facts(image.path).modality or not modality else {"modality": modality}
    if image.path.is_dir():
        name = f"{FOLDER}/{digest}"
        partial = out / f"{name}.{os.getpid()}.partial"
        plain_tree(image.path, partial)
        _put(partial, out / name)
        if any(options["volume"] != str(image.path) or "series" in options for _, options in named_volumes(image.path)):
            # no single series is no volume item: pictures that name their folder
            shown = _picture(image, digest, out, modality)
            return [{**item, "source": name} if item["type"] == "image" else item for item in shown]
    else:
        name = f"{FOLDER}/{digest}{'.dcm' if is_dicom(image.path) else '.nii.gz'}"
        plain_copy(image.path, out / name)
    return [{"type": image.kind, image.kind: name, **stated}]


def _picture(image: LabelledImage, digest: str, out: Path, modality: str | None) -> Items:
    stated = {"modality": modality} if modality else {}
    if image.kind == "image":
        return [{"type": "image", "image": _save(load_image(image.path), out, digest), **stated}]
    items, number = [], 0
    for item in volume_views(image):
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
