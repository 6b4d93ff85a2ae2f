"""The kinds of content items that are no text: one list for the processor, training, evaluation and the commands."""

MEDIA_TYPES = ("image", "video", "document", "volume")
ALWAYS_TAGS = ("image", "video")  # `<image>` in plain text stands for a file; the other words only where one is listed
