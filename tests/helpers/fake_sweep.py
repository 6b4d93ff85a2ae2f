"""Results of a projector sweep as `radio-vlm sweep` writes them, made up: many close points, one failed variant."""

VARIANTS = (  # label, type, settings, tokens, exact match, prefill ms
    ("mlp", "mlp", {}, 48, 0.954, 14.2),
    ("linear", "linear", {}, 48, 0.921, 14.0),
    ("pixel_shuffle 2", "pixel_shuffle", {"downsample": 2}, 12, 0.946, 11.4),
    ("spatial_to_channel 2", "spatial_to_channel", {"downsample": 2}, 12, 0.942, 11.5),
    ("average_pool 2", "average_pool", {"downsample": 2}, 12, 0.583, 11.3),
    ("token_merging quarter", "token_merging", {"keep": 0.25}, 12, 0.688, 12.9),
    ("resampler 12", "resampler", {"num_queries": 12}, 12, 0.113, 12.2),
    ("pixel_shuffle 3", "pixel_shuffle", {"downsample": 3, "odd_grids": "pad"}, 6, 0.925, 11.2),
    ("spatial_to_channel 3", "spatial_to_channel", {"downsample": 3}, 6, 0.929, 11.2),
    ("pixel_shuffle 4", "pixel_shuffle", {"downsample": 4, "odd_grids": "pad"}, 4, 0.858, 11.1),
)


def fake_results() -> dict:
    """The content of a results.json."""
    rows = []
    for label, kind, settings, tokens, score, prefill in VARIANTS:
        kinds = {name: {"exact_match": score, "n": 60} for name in ("bar_chart", "form", "receipt", "table")}
        rows.append(
            {
                "name": label.replace(" ", "-"), "label": label, "type": kind, "settings": settings, "error": None,
                "seconds": {"new": 5.0, "stage1": 70.0, "stage2": 400.0, "eval": 12.0},
                "exact_match": score, "anls": round(score + 0.02, 3), "n": 240, "failed": 0, "kinds": kinds,
                "images_exchanged": 0.02, "heldout_loss": round(1.2 - score, 3), "samples_per_second": 69.5,
                "projector_parameters": 328192, "commands": {"new": ["python", "-m", "vlm", "new", "--out", "a b"]},
                "tokens_per_page": tokens, "patches_per_page": 48,
                "encode_ms": 1.9, "forward_ms": round(prefill - 1.9, 2), "prefill_ms": prefill,
                "document_encode_ms": 21.0, "document_forward_ms": 9 * prefill, "document_prefill_ms": 9 * prefill + 21,
                "prefill_prompts": 24, "prefill_rounds": 5, "document_pages": 16,
            }
        )  # fmt: skip
    broken = {"name": "broken", "label": "broken <x>", "type": "broken", "settings": {}, "seconds": {}}
    rows.append({**broken, "error": "stage1 ended with exit code 1: ValueError: <no> (log: broken/stage1.log)"})
    return {
        "format": 1, "steps": {"stage1": 140, "stage2": 840}, "batch_size": 32, "seed": 1,
        "data": "data/documents-test", "bases": "bases", "wall_seconds": 2400.0,
        "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 16.0}, "versions": {"python": "3.12"},
        "variants": rows,
    }  # fmt: skip
