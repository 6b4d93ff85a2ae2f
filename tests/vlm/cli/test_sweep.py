"""The projector sweep: commands that the doors accept, chains that fail alone and resume, prompts that are timed."""

import argparse
import json
import sys

import pytest

from eval.run import parser as eval_parser
from projectors.components import default_config, projector_names
from tests.helpers.tiny_vlm import build_tiny
from training.recipe.loading import load_recipe
from vlm.cli import sweep
from vlm.cli.main import build_parser
from vlm.cli.new import check_keys
from vlm.cli.parts import parse_pairs
from vlm.cli.sweep_jobs import Chain, run_chains
from vlm.cli.sweep_prefill import DOCUMENT_PAGES, measure, prompts
from vlm.cli.sweep_variants import PORT, SETTINGS, STEPS, Plan, Variant, all_variants, choose, preparation
from vlm.errors import RadioVLMError


def plan(tmp_path, **changes) -> Plan:
    from pathlib import Path

    root = Path(sweep.__file__).resolve().parents[2]
    values = {"root": root, "out": tmp_path, "bases": tmp_path / "b", "data": tmp_path / "d"}
    return Plan(**{**values, "steps": 600, "batch_size": 32, "seed": 7, **changes})


# ---- variants -----------------------------------------------------------------------------------------------------


def test_every_registered_projector_takes_part():
    assert {variant.type for variant in all_variants()} == set(projector_names())
    assert len({variant.name for variant in all_variants()}) == len(all_variants())
    assert set(SETTINGS) <= set(projector_names()), "settings of a projector that is not there"


@pytest.mark.parametrize("variant", all_variants(), ids=lambda variant: variant.name)
def test_settings_build_and_take_the_pages_of_the_sweep(variant):
    """6 x 8 patches fold without an error, and the placeholder count is that of the features."""
    import torch

    from projectors.components import build_projector, num_tokens

    config = default_config({"type": variant.type, **variant.settings}, 16, 32)
    tokens = build_projector(config, 16, 32)(torch.randn(48, 16), [(8, 6)])
    assert tokens.shape == (num_tokens(config, 8, 6), 32)


def test_choosing_by_type_and_by_name():
    assert [v.name for v in choose(["pixel_shuffle"])] == ["pixel_shuffle-2", "pixel_shuffle-3", "pixel_shuffle-4"]
    assert [v.name for v in choose(["pixel_shuffle-3", "mlp"])] == ["mlp", "pixel_shuffle-3"]
    assert choose(None) == all_variants()
    with pytest.raises(RadioVLMError, match="unknown pixelshuffle; known: .*pixel_shuffle-2"):
        choose(["pixelshuffle"])


# ---- commands -----------------------------------------------------------------------------------------------------


def test_commands_are_what_the_doors_accept(tmp_path):
    """Parsed by the parsers of `new`, of the stages and of the evaluation, so that a renamed option shows here."""
    for variant in all_variants():
        commands = plan(tmp_path).commands(variant)
        assert tuple(commands) == STEPS
        folder = tmp_path / "variants" / variant.name

        args = build_parser().parse_args(commands["new"][3:])
        chosen = parse_pairs(args.projector, "--projector")
        assert chosen == {"type": variant.type, **variant.settings} and args.out == folder / "stage0"
        assert args.preset == "tiny" and args.seed == 7
        check_keys({"projector": chosen, "video": None, "features": None})

        for stage, steps, model in ((1, 100, "stage0"), (2, 600, "stage1")):
            words = commands[f"stage{stage}"]
            assert words[1:5] == ["--num_accelerators", "1", "--master_port", PORT]
            recipe = load_recipe(words[words.index("--config") + 1], words[words.index("--config") + 2 :])
            assert (recipe.train.max_steps, recipe.train.per_device_batch_size, recipe.seed) == (steps, 32, 7)
            assert recipe.model == str(folder / model) and recipe.output_dir == str(folder / f"stage{stage}")
            assert [source.path for source in recipe.data.sources] == ["documents-train"]
            assert [source.path for source in recipe.data.eval_sources] == ["documents-val"]

        args = eval_parser().parse_args(commands["eval"][2:])
        assert args.model == str(folder / "stage2") and args.out == folder / "eval.json"
        assert args.data == str(tmp_path / "d/documents-test")


def test_equal_steps_for_all(tmp_path):
    steps = {
        tuple(word for word in words if word.startswith(("train.", "data.", "seed=")))
        for variant in all_variants()
        for name, words in plan(tmp_path).commands(variant).items()
        if name == "stage2"
    }
    assert len(steps) == 1
    assert plan(tmp_path, steps=1).stage1_steps == 1


def test_only_what_is_missing_is_made(tmp_path):
    settings = {"data": {f"documents-{split}": {"n": 4} for split in ("train", "val", "test")} | {"videos-train": {}}}
    settings["bases"] = {"llm_seconds": 3, "radio_seconds": 4}
    assert list(preparation(tmp_path, tmp_path, 1, settings, bases=True, data=False)) == ["llm", "radio"]
    commands = preparation(tmp_path, tmp_path, 1, settings, bases=False, data=True)
    args = build_parser().parse_args(commands["data"][3:])
    assert args.seed == 1 and "videos" not in (tmp_path / "data.yaml").read_text()
    assert args.plan == tmp_path / "data.yaml" and args.out == tmp_path / "data"


# ---- chains -------------------------------------------------------------------------------------------------------


def chain(folder, **steps) -> Chain:
    """Steps of Python code; each also writes down that it ran."""
    note = "open('ran', 'a').write({!r} + '\\n'); "
    return Chain(
        folder.name, folder, {name: [sys.executable, "-c", note.format(name) + code] for name, code in steps.items()}
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("vlm.cli.sweep_jobs.POLL_SECONDS", 0.02)


def run(tmp_path, *chains, at_once=2) -> list:
    said = []
    for one in chains:
        one.read_finished()
    run_chains(list(chains), at_once, {"SWEEP_TEST": "1"}, said.append, cwd=tmp_path)
    return [words for words in said if isinstance(words, str)]


def test_a_failure_stops_its_own_chain_only(tmp_path):
    good = chain(tmp_path / "good", a="import os; assert os.environ['SWEEP_TEST'] == '1'", b="")
    bad = chain(tmp_path / "bad", a="raise ValueError('no such base')", b="")
    said = run(tmp_path, good, bad)
    assert good.error is None and good.next_step is None and set(good.seconds) == {"a", "b"}
    assert bad.error.startswith("a ended with exit code 1: ValueError: no such base") and "a.log" in bad.error
    assert sorted(words.split(":")[0] for words in said) == ["bad", "good"]
    assert (tmp_path / "ran").read_text().split().count("b") == 1


def test_finished_steps_are_kept_and_changed_ones_run_again_with_all_behind_them(tmp_path):
    folder = tmp_path / "one"
    run(tmp_path, chain(folder, a="", b="", c=""))
    run(tmp_path, chain(folder, a="", b="", c=""))
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "c"], "nothing was done twice"
    run(tmp_path, chain(folder, a="", b="pass", c=""))
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "c", "b", "c"]
    (folder / "a.done").write_text("{torn")
    run(tmp_path, chain(folder, a="", b="pass", c=""))
    assert (tmp_path / "ran").read_text().split()[5:] == ["a", "b", "c"]


def test_a_failed_chain_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "one"
    needs_file = "open('wanted')"
    first = chain(folder, a="", b=needs_file, c="")
    run(tmp_path, first)
    assert "No such file" in first.error and first.next_step == "b"
    (tmp_path / "wanted").touch()
    again = chain(folder, a="", b=needs_file, c="")
    run(tmp_path, again)
    assert again.error is None and (tmp_path / "ran").read_text().split() == ["a", "b", "b", "c"]


def test_ports_are_filled_in_when_a_command_starts_and_do_not_count_as_a_change(tmp_path):
    one = Chain("p", tmp_path / "p", {"a": [sys.executable, "-c", "import sys; print('port', sys.argv[1])", PORT]})
    run_chains([one], 1, {}, lambda _: None, fill=sweep.fill_port)
    log = one.log("a").read_text().splitlines()[-1].split()
    assert log[0] == "port" and int(log[1]) > 1000
    one.read_finished()
    assert one.next_step is None


# ---- the command itself -------------------------------------------------------------------------------------------


def parsed(*words) -> argparse.Namespace:
    return build_parser().parse_args(["sweep", *map(str, words)])


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants/thesis.txt").write_text("years of work")
    with pytest.raises(RadioVLMError, match="holds no earlier sweep"):
        sweep.run(parsed("--out", tmp_path, "--fresh"))
    assert (tmp_path / "variants/thesis.txt").is_file()
    (tmp_path / sweep.MARK).touch()
    sweep.claim(tmp_path, fresh=False)
    assert (tmp_path / "variants").is_dir()
    sweep.claim(tmp_path, fresh=True)
    assert not (tmp_path / "variants").exists()


@pytest.mark.parametrize("words", [("--steps", 0), ("--batch-size", 0), ("--at-once", 0), ("--projectors", "nonsense")])
def test_bad_options_are_refused_before_anything_is_written(words, tmp_path):
    with pytest.raises(RadioVLMError):
        sweep.run(parsed("--out", tmp_path / "new", *words))
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three pages of two sizes with a question each."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pages")
    lines = []
    for i, size in enumerate([(96, 128), (96, 128), (64, 64)]):
        Image.new("RGB", size, (30 * i, 90, 200)).save(folder / f"{i}.png")
        content = [{"type": "image", "image": f"{i}.png"}, {"type": "text", "text": f"Q{i}?"}]
        lines.append(json.dumps({"messages": [{"role": "user", "content": content}]}))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_prompts_of_one_page_and_of_many(pages):
    single = prompts(pages, 1, 3)
    assert [message[0]["content"][1]["text"] for message in single] == ["Q0?", "Q1?", "Q2?"]
    (many,) = prompts(pages, 5, 1)
    content = many[0]["content"]
    assert [item["type"] for item in content] == ["image"] * 5 + ["text"] and content[-1]["text"] == "Q1?"
    assert content[0]["image"] == content[3]["image"], "too few pages: they come again"


def test_measured_tokens_are_the_models_own_and_times_are_apart(pages, tmp_path):
    geometry = {"min_num_patches": 4, "max_num_patches": 256}
    for name, projector in (("all", {"type": "mlp"}), ("few", {"type": "pixel_shuffle", "downsample": 2})):
        for part in build_tiny(geometry=geometry, projector=projector):
            part.save_pretrained(tmp_path / name)
    found = measure({name: tmp_path / name for name in ("all", "few")}, pages, count=3, documents=1, rounds=3)
    assert found["all"]["tokens_per_page"] == found["all"]["patches_per_page"]
    assert found["all"]["tokens_per_page"] == pytest.approx((48 + 48 + 16) / 3, abs=0.01)
    assert found["few"]["tokens_per_page"] == pytest.approx(found["all"]["tokens_per_page"] / 4, abs=0.01)
    for row in found.values():
        assert 0 < row["encode_ms"] < row["prefill_ms"] and 0 < row["forward_ms"] < row["prefill_ms"]
        assert row["document_pages"] == DOCUMENT_PAGES and row["document_prefill_ms"] > row["prefill_ms"]


def test_a_failed_variant_is_a_row_with_its_reason(tmp_path):
    one = Chain("mlp", tmp_path, {"new": ["x"]}, error="new ended with exit code 1: boom")
    row = sweep.variant_result(Variant("mlp", "mlp"), one, plan(tmp_path))
    assert row["error"].endswith("boom") and "exact_match" not in row


@pytest.mark.slow
def test_whole_sweep_of_two_projectors(tmp_path, capsys):
    """Every step for real, at four training steps; the second time nothing is trained again."""
    words = ("--run", tmp_path / "none", "--out", tmp_path / "s", "--steps", 4, "--projectors", "mlp", "resampler")
    assert sweep.run(parsed(*words)) == 0
    results = json.loads((tmp_path / "s/results.json").read_text())
    assert [row["error"] for row in results["variants"]] == [None, None]
    by_name = {row["name"]: row for row in results["variants"]}
    assert by_name["mlp"]["tokens_per_page"] == 48 and by_name["resampler-12"]["tokens_per_page"] == 12
    assert (tmp_path / "s/report.html").is_file() and "resampler 12" in (tmp_path / "s/sweep.md").read_text()
    capsys.readouterr()
    assert sweep.run(parsed(*words)) == 0
    assert "2 of them finished earlier" in capsys.readouterr().out
