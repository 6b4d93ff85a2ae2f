"""What of a model trains in a stage: freezing, memory savers, optimizer groups, and the table that says so."""

from torch import nn

from training.freezing import apply_freezing, new_token_ids, train_rows_only, trainable_table
from training.optimizers import build_param_groups
from training.recipe import Recipe
from training.towers import prepare_towers


def make_trainable(model: nn.Module, processor, recipe: Recipe) -> tuple[list[dict], list[dict]]:
    """Set requires_grad and memory savers; returns the optimizer groups and the rows of the printed table."""
    prepare_towers(model, recipe)
    row_table = apply_freezing(model, recipe.modules)
    groups = build_param_groups(model, recipe, row_table)
    if row_table is not None:
        rows = new_token_ids(model, processor.tokenizer)
        train_rows_only(row_table, rows)
        group = next(group for group in groups if group["name"] == "new_embeddings/other")
        group["rows_parameters"] = len(rows) * model.get_input_embeddings().embedding_dim
    return groups, trainable_table(model, groups)
