"""Content items of a chat message from files named on the command line. Not a command itself."""

from pathlib import Path

from vlm.errors import RadioVLMError


def media_item(path: str | Path, kind: str, defaults: dict | None = None, **options) -> dict:
    """`{"type": "image" | "video" | "document", ...}` of a file; a missing one is named before anything is loaded.

    options, for a video: max_frames, fps, start, end (seconds); None where nobody said anything. `defaults` holds the
    processor's own max_frames and fps, used when only some options are given. For a document: pages ("1-3,5"), dpi; the
    file is opened once, so that a broken one or a page that it lacks is named here too.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise RadioVLMError(f"no {kind} file {path}")
    options = {key: value for key, value in options.items() if value is not None}
    if kind == "document":
        from vlm.media import open_document

        try:
            open_document(path, **options)
        except ImportError as error:
            raise RadioVLMError(str(error)) from error
        return {"type": kind, kind: str(path), **options}
    if kind == "image" or not options:
        return {"type": kind, kind: str(path)}
    from vlm.media import load_video
    from vlm.prompt_media import MAX_FRAMES

    known = {key: (defaults or {}).get(key) for key in ("max_frames", "fps")}
    known = {key: value for key, value in known.items() if value is not None}
    options = {"max_frames": MAX_FRAMES} | known | options  # a model may set no bound of its own
    try:
        clip = load_video(path, **options)
    except ValueError as error:  # settings that mean nothing, e.g. fps=0
        raise RadioVLMError(f"{path}: {error}") from error
    return {"type": "video", "video": clip.frames, "timestamps": clip.timestamps}


def volume_items(path: str | Path, processor, **options) -> list[dict]:
    """The text and image items of a volume (a folder of DICOM slices, a multi-frame file, NIfTI), read here once.

    options: modality, window, slices; None where nobody said anything. What is wrong with the volume is said here.
    The images name the volume as their source, so that an expert can be offered for it.
    """
    from vlm.prompt_volumes import expand_volumes

    path = Path(path).expanduser()
    if not path.exists():
        raise RadioVLMError(f"no volume {path}")
    item = {"type": "volume", "volume": str(path), **options}
    try:
        items = expand_volumes([{"role": "user", "content": [item]}], processor.num_image_tokens)[0]["content"]
    except ImportError as error:
        raise RadioVLMError(str(error)) from error
    stated = {"source": str(path)} | ({"modality": options["modality"]} if options.get("modality") else {})
    return [item | stated if item["type"] == "image" else item for item in items]
