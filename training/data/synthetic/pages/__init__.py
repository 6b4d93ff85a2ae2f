"""The kinds of page of the documents corpus: one file a kind, each with at least two layouts."""
