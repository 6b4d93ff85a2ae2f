"""Training data: sources -> Sample -> mixture -> dataset -> batches; the validator; synthetic corpora."""
