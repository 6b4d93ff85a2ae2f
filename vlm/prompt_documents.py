"""Documents in a conversation become labelled pages: the text "Page 1:", its picture, the next page.

Only the number of pages is read here; each page is rendered when its picture is wanted. Files are opened by `vlm.media`
where the package is installed; a checkpoint used on its own takes pages as images.
"""

from vlm.errors import SampleError

KEYS = ("type", "document", "path", "pages", "dpi", "labels")


def expand_documents(messages: list[dict]) -> list[dict]:
    """Messages -> messages without `document` items; the same object when there are none.

    `{"type": "document", "document": "x.pdf", "pages": "1-3,5", "dpi": 144, "labels": True}` becomes, for each page,
    the items "Page 1:\\n" (the number in the file), an image, "\\n"; with `labels` false the images alone.

    Raises:
        SampleError: bad_message, no_media, no_document_reader, and those of `vlm.media.pages.open_document`.
    """
    if not isinstance(messages, (list, tuple)) or not any(map(_has_document, messages)):
        return messages
    return [_expanded(message) if _has_document(message) else message for message in messages]


def _has_document(message) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, (list, tuple)) and any(map(_is_document, content))


def _is_document(item) -> bool:
    return isinstance(item, dict) and item.get("type") == "document"


def _expanded(message: dict) -> dict:
    content = []
    for item in message["content"]:
        content += _page_items(item) if _is_document(item) else [item]
    return {**message, "content": content}


def _page_items(item: dict) -> list[dict]:
    """One document item -> text and image items."""
    item = {key: value for key, value in item.items() if value is not None}  # Arrow fills in null keys
    if unknown := sorted(set(item) - set(KEYS)):  # a misspelt `pages` would silently send the whole document
        message = f"a document item has no {', '.join(unknown)}; its keys are {', '.join(KEYS)}"
        raise SampleError(message, reason="bad_message")
    source = item.get("document", item.get("path"))
    if source is None:
        raise SampleError("a document item has no document (path or bytes)", reason="no_media")
    labels = item.get("labels", True)
    if not isinstance(labels, bool):
        raise SampleError(f"labels of a document are true or false, not {labels!r}", reason="bad_message")
    try:
        from vlm.media.pages import open_document
    except ImportError as error:
        message = "documents are read by the radio-vlm package (`import vlm`); here pass the pages as images"
        path = source if isinstance(source, str) else None
        raise SampleError(message, path=path, reason="no_document_reader") from error
    options = {key: item[key] for key in ("pages", "dpi") if key in item}
    items = []
    for page in open_document(source, **options):
        picture = {"type": "image", "image": page}
        if labels:
            label = {"type": "text", "text": f"Page {page.number}:\n"}
            items += [label, picture, {"type": "text", "text": "\n"}]
        else:
            items.append(picture)
    return items
