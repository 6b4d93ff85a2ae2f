"""Projectors: from vision features to language-model tokens; one file each, named by `projector_config["type"]`."""
