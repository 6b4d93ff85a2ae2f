"""The `radio-vlm` command line; nothing outside this folder imports it."""
