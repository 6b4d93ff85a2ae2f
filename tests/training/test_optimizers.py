"""Groups, tags and freezing on a real small VLM, in one process."""

import copy

import pytest
import torch
from PIL import Image

from tests.helpers.stage_runs import small_vlm
from training.freezing import apply_freezing, format_table, new_token_ids, train_rows_only, trainable_table
from training.optimizers import build_optimizer, build_param_groups, check_tags
from training.recipe import RecipeError
from training.recipe.loading import load_recipe


@pytest.fixture(scope="module")
def built():
    return small_vlm()


@pytest.fixture
def model(built):
    return copy.deepcopy(built[0])


def groups_of(model, *words):
    recipe = load_recipe(None, list(words))
    table = apply_freezing(model, recipe.modules)
    return recipe, build_param_groups(model, recipe, table), table


def names_in(model, group) -> set[str]:
    inside = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def test_every_parameter_is_in_exactly_one_group(model):
    _, groups, _ = groups_of(model)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in model.parameters()}


def test_rates_and_decay_per_module(model):
    _, groups, _ = groups_of(
        model, "learning_rate=1e-3", "train.weight_decay=0.1", "modules.vision.lr=1e-5", "modules.text.weight_decay=0.2"
    )
    rows = {group["name"]: group for group in groups}
    assert rows["vision/matrix"]["lr"] == rows["vision/other"]["lr"] == 1e-5
    assert rows["projector/matrix"]["lr"] == rows["text/other"]["lr"] == 1e-3
    assert rows["projector/matrix"]["weight_decay"] == 0.1 and rows["text/matrix"]["weight_decay"] == 0.2
    assert all(group["weight_decay"] == 0 for name, group in rows.items() if name.endswith("/other"))


def test_muon_takes_hidden_matrices_only(model):
    _, groups, _ = groups_of(model, "optimizer=muon", "modules.vision.muon_lr=0.01")
    muon = {name for group in groups if group["use_muon"] for name in names_in(model, group)}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert muon and all(len(shapes[name]) == 2 for name in muon)
    for word in ("embed_tokens", "lm_head", "token", "position", "conv", "norm", "A_log"):
        assert not [name for name in muon if word in name], word
    for part in ("patch_projection", "mixer.in_proj", "mixer.out_proj", "q_proj", "mlp.fc1", "multi_modal_projector"):
        assert [name for name in muon if part in name], part
    assert {group["name"]: group["lr"] for group in groups if group["use_muon"]} == {
        "vision/matrix": 0.01, "projector/matrix": 0.02, "text/matrix": 0.02,
    }  # fmt: skip


def test_muon_for_one_module(model):
    _, groups, _ = groups_of(model, "modules.projector.optimizer=muon")
    assert [group["name"] for group in groups if group["use_muon"]] == ["projector/matrix"]


def test_changed_tags_are_noticed(model):
    _, groups, _ = groups_of(model, "optimizer=muon")
    check_tags(groups)
    model.get_input_embeddings().weight.use_muon = True  # what DeepSpeed would do to any 2-D weight it does not know
    with pytest.raises(RecipeError, match="Muon tag"):
        check_tags(groups)


def test_trainable_table_adds_up(model):
    _, groups, _ = groups_of(model, "modules.vision.freeze=true")
    rows = trainable_table(model, groups)
    assert sum(row["parameters"] for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    assert {row["group"] for row in rows if not row["trainable"]} == {"vision/frozen"}
    assert "vision/frozen" in format_table(rows)


def test_frozen_parts_stay_and_trained_parts_move(built):
    model, processor = copy.deepcopy(built[0]), built[1]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    words = ["modules.vision.freeze=true", "modules.text.freeze=true", "modules.new_embeddings.freeze=false"]
    recipe, groups, table = groups_of(model, *words, "learning_rate=1e-2", "train.weight_decay=0.1")
    rows = new_token_ids(model, processor.tokenizer)
    train_rows_only(table, rows)
    optimizer = build_optimizer(groups, recipe, partitioned=False)
    question = [{"type": "image", "image": Image.new("RGB", (64, 48))}, {"type": "text", "text": "?"}]
    message = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "ab"}]},
    ]
    batch = processor.collate([processor.encode(message)])
    for _ in range(3):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    table_name = next(name for name, parameter in model.named_parameters() if parameter is table)
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        if name == table_name:
            moved = (parameter != before[name]).any(dim=1).nonzero().flatten().tolist()
            assert moved and set(moved) <= set(rows)
        else:
            assert same != name.startswith("multi_modal_projector."), name


def test_new_rows_need_special_tokens(model):
    with pytest.raises(RecipeError, match="special tokens"):
        train_rows_only(model.get_input_embeddings().weight, [])


def test_adam_groups_are_clipped_each_by_itself_under_muon(model):
    recipe, groups, _ = groups_of(model, "optimizer=muon", "max_grad_norm=0.5")
    optimizer = build_optimizer(groups, recipe, partitioned=False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for group in groups:
        norm = torch.stack([parameter.grad.norm() for parameter in group["params"]]).norm()
        if not group["use_muon"]:
            assert norm == pytest.approx(0.5, rel=1e-3)


def test_muon_update_has_the_size_of_its_rate(model):
    """Orthogonal updates: the root mean square of a step depends on the rate and the shape, not on the gradient."""
    recipe, groups, _ = groups_of(model, "optimizer=muon", "max_grad_norm=1.0")
    optimizer = build_optimizer(groups, recipe, partitioned=False)
    group = next(group for group in groups if group["use_muon"])
    parameter = group["params"][0]
    before = parameter.detach().clone()
    for other in model.parameters():
        other.grad = 1e-6 * torch.randn_like(other)
    optimizer.step()
    step = (parameter - before).detach()
    rows, columns = parameter.shape
    expected = group["lr"] * max(1.0, rows / columns) ** 0.5 * min(rows, columns) ** 0.5
    assert step.norm() == pytest.approx(expected, rel=0.3)
