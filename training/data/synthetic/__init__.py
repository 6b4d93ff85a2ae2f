"""The embedded corpora: drawn, filmed and scanned by code, so that nothing has to be downloaded to learn something."""
