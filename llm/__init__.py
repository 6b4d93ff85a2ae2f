"""What training needs from a language model beyond transformers: scans, packing, kernels; one file a concern."""
