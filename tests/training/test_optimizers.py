"""Groups, tags and freezing on a real small VLM, in one process."""

import copy
import re

import pytest
import torch
from PIL import Image

from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers.stage_runs import small_parts, small_vlm
from training.freezing import apply_freezing, format_table, new_token_ids, train_rows_only, trainable_table
from training.optimizers import build_optimizer, build_param_groups, check_tags
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from vlm.build import build_vlm


@pytest.fixture(scope="module")
def built():
    return small_vlm()


@pytest.fixture
def model(built):
    return copy.deepcopy(built[0])


@pytest.fixture(scope="module")
def deep_built():
    """Three blocks in the encoder and in the language model."""
    vision, text = small_parts()
    vision.num_hidden_layers = 3
    geometry = {"mode": "dynamic", "min_num_patches": 4, "max_num_patches": 16}
    return build_vlm(vision, text, build_byte_tokenizer(), geometry=geometry)


@pytest.fixture
def deep(deep_built):
    return copy.deepcopy(deep_built[0])


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


def test_every_block_has_the_rate_of_its_depth(deep):
    """d ** (blocks behind it); what stands before the first block is one further, what stands behind the last none."""
    words = ("learning_rate=1e-3", "modules.vision={layer_decay: 0.8, lr: 2.0e-4}", "modules.text.layer_decay=0.9")
    _, groups, _ = groups_of(deep, *words)
    rates = {name: group["lr"] for group in groups for name in names_in(deep, group)}
    for name, rate in rates.items():
        part, decay, base = ("text", 0.9, 1e-3) if "language_model" in name else ("vision", 0.8, 2e-4)
        if name.startswith("multi_modal"):
            assert rate == 1e-3
            continue
        block = re.search(r"layers?\.(\d+)\.", name)
        depth = 3 - 1 - int(block[1]) if block else (3 if "embeddings" in name else 0)
        assert rate == pytest.approx(base * decay**depth), f"{part} {name}"
    names = [group["name"] for group in groups]
    assert "vision/block02/matrix" in names and "text/embeddings/other" in names and "text/head/other" in names
    assert len(names) == len(set(names))
    rows = trainable_table(deep, groups)
    assert sum(row["parameters"] for row in rows) == sum(parameter.numel() for parameter in deep.parameters())


def test_layer_decay_needs_blocks(model):
    with pytest.raises(RecipeError, match="projector has no numbered blocks"):
        groups_of(model, "modules.projector.layer_decay=0.9")


def test_muon_stays_with_hidden_matrices_under_layer_decay_and_norms_only(deep):
    words = ("optimizer=muon", "modules.text.layer_decay=0.9", "modules.vision.norms_only=true")
    _, groups, _ = groups_of(deep, *words)
    muon = {name for group in groups if group["use_muon"] for name in names_in(deep, group)}
    assert muon and not any(name.startswith("vision_model.") for name in muon)
    for word in ("embed", "lm_head", "conv", "norm", "A_log"):
        assert not [name for name in muon if word in name], word
    rates = {group["name"]: group["lr"] for group in groups if group["use_muon"]}
    assert rates["text/block00/matrix"] == pytest.approx(0.02 * 0.81)
    check_tags(groups)


def test_norms_only_trains_norms_and_nothing_else_of_a_part(model):
    _, groups, _ = groups_of(model, "modules.vision.norms_only=true")
    trained = {name for group in groups for name in names_in(model, group) if name.startswith("vision_model.")}
    wanted = {name for name, _ in model.named_parameters() if name.startswith("vision_model.") and ".norm" in name}
    assert trained == wanted and len(wanted) == 4
    assert next(g for g in groups if g["name"] == "vision/other")["weight_decay"] == 0
    assert "text/matrix" in {group["name"] for group in groups}


def test_a_skipped_step_changes_nothing(model):
    """Without gradients neither weights nor moments of either optimizer move."""
    for words in (("optimizer=muon",), ()):
        recipe, groups, _ = groups_of(model, *words, "train.weight_decay=0.1")
        optimizer = build_optimizer(groups, recipe, partitioned=False)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        weights = copy.deepcopy(model.state_dict())
        state = copy.deepcopy(optimizer.state_dict()["state"])
        optimizer.zero_grad(set_to_none=True)
        optimizer.step()
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        for index, moments in optimizer.state_dict()["state"].items():
            assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(state[index][key]))
                       for key, value in moments.items())  # fmt: skip
