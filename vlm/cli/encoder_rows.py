"""What sets an encoder and its use apart, as rows (what, how) for `new` and `inspect`. Not a command."""


def encoder_rows(config) -> list[tuple[str, str]]:
    """Rows of a `RadioVLMConfig`: release, size, attention, features, what was left in the checkpoint."""
    vision, wanted = config.vision_config, config.vision_features
    size = f"width {vision.hidden_size}, {vision.num_hidden_layers} blocks, {vision.patch_size}-pixel patches"
    rows = [("release", vision.version or "not known"), ("size", size), ("attention", attention(vision))]
    layers = wanted["layers"]
    used = ["last block"]
    if layers is not None:
        dense = ", each the mean since the one before" if wanted["aggregation"] == "dense" else ""
        used = [f"blocks {', '.join(map(str, layers))}{dense}"]
        used += ["intermediate normalizer"] * bool(vision.intermediate_normalizer)
    else:
        used += ["PHI-S"] * vision.feature_normalizer
    used += [wanted["normalize"]] * (wanted["normalize"] != "none")
    rows.append(("features", "; ".join(used)))
    summary = config.projector_config.get("summary_tokens", 0)
    rows.append(("class tokens", f"{summary} before the patches of a picture" if summary else "not used"))
    positions = "random windows, as in RADIO's own training" if vision.cpe_training else "as in evaluation"
    rows.append(("positions in training", positions))
    if left := getattr(config, "vision_heads_left_out", None):
        rows.append(("heads left out", ", ".join(left)))
    return rows


def attention(vision) -> str:
    """Which blocks attend inside windows of which size."""
    from encoders.vitdet import window_schedule

    window = vision.vitdet_window_size
    if not window:
        return "global in every block"
    schedule = window_schedule(vision.num_hidden_layers, vision.vitdet_num_global, vision.vitdet_num_windowed)
    blocks = ", ".join(str(index) for index, windowed in enumerate(schedule) if not windowed)
    return f"windows of {window}×{window} patches; global in blocks {blocks}"
