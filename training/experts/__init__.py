"""Training of the embedded experts; the experts themselves are in `vlm.experts` and only load what is made here."""
