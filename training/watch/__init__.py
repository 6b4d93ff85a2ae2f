"""What is looked at while a stage runs: throughput, progress, held-out loss, predictions, reporters, bad losses."""
