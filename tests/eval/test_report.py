"""The report: all its parts from the files of a run, nothing fetched, and a page even where files are missing."""

import json
import re

import pytest
import torch
from PIL import Image

from encoders.presets import VISION_PRESETS
from eval.report.build import build, main
from eval.report.charts import Band, Dumbbell, Ring, dumbbells, loss_bands, smooth, ticks
from eval.report.feature_maps import encode, fit_basis, to_image
from eval.report.pictures import columns_for, data_uri
from eval.report.run_files import read_run
from eval.report.samples import choose
from eval.results import write_json
from llm.presets import LLM_PRESETS
from tests.helpers.balanced_html import Balanced
from tests.helpers.fake_run import STAGES, write_run
from vlm.build import build_vlm

pytest.importorskip("pydicom", reason="optional package absent")

GEOMETRY = {"mode": "dynamic", "patch_size": 16, "multiple": 2, "min_num_patches": 4, "max_num_patches": 64}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "demo", n=12, stages={**STAGES, "stage4": (0.7, 150, 0.9, 0.2)}
    )
    torch.manual_seed(0)
    vision, llm = VISION_PRESETS["tiny"], LLM_PRESETS["tiny"]
    for part in build_vlm(vision.config(), llm.config(), llm.tokenizer(), geometry=GEOMETRY):
        part.save_pretrained(folder / "stage4")
    steps = {"data": 40.0, "stage 2: instruction tuning": 230.0, "export": 9.0}
    write_json({"wall_seconds": 840.0, "steps": steps}, folder / "results.json")
    return folder


@pytest.fixture(scope="module")
def page(run_folder):
    assert main(["--run", str(run_folder)]) == 0
    return (run_folder / "report.html").read_text()


def test_all_parts_are_there(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.headings == [
        "Does it look?", "Stage by stage", "With and without the expert", "What was confused with what",
        "How it learned", "What it answered", "Conversations with experts", "What RADIO sees", "What was trained",
        "Speed and machine", "Small print",
    ]  # fmt: skip
    assert "examined in 14 minutes" in page
    assert page.count('<article class="card">') == 12 and page.count('<article class="card talk">') == 6
    assert page.index("Research software, not for clinical use.") < page.index("<h1>")
    assert page.count('<figure class="map"') == 6
    assert page.count("<svg") == 5  # kinds, the expert's worth in two sizes, losses, timeline
    for words in ("images exchanged", "frames shuffled", "expert withheld", "expert wrong", "trigger recall"):
        assert words in page
    assert "<code>&lt;LESIONS()&gt;</code>" in page and ">LESIONS</span>" in page, "the transcript of an expert call"
    assert "✓" in page and "✗" in page, "right and wrong answers"


def test_the_page_fetches_nothing(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.sources and all(source.startswith("data:") for source in parser.sources)
    assert not re.search(r"url\(|@import|<script|https?://", page)
    assert len(page) < 1_500_000


def test_a_run_with_little_in_it_still_gives_a_page(tmp_path):
    write_json({"log_history": [{"step": 1, "loss": 2.0}]}, tmp_path / "stage1/trainer_state.json")
    text = build(tmp_path).read_text()
    assert "How it learned" in text and "What it answered" not in text
    (tmp_path / "empty").mkdir()
    assert "<h1>Built, trained and examined</h1>" in build(tmp_path / "empty").read_text()
    (tmp_path / "stage1/trainable.json").write_text("{torn")
    assert read_run(tmp_path).stages[0].trainable == []
    assert main(["--run", str(tmp_path / "nowhere")]) == 2


def test_missing_pictures_cost_their_picture_only(tmp_path):
    write_run(tmp_path, n=4, stages={"stage2": (0.5, 10, 2.0, 1.0)})
    for file in (tmp_path / "data").rglob("*.png"):
        file.unlink()
    text = build(tmp_path).read_text()
    assert "picture not available" in text and text.count('<article class="card">') > 4


def test_words_of_models_and_users_stay_text(tmp_path):
    write_run(tmp_path, n=4, stages={"stage2": (1.0, 10, 2.0, 1.0)})
    file = tmp_path / "eval/stage2-documents.json"
    results = json.loads(file.read_text())
    results["samples"][0] |= {"question": "<script>q</script>", "output": "<img src=http://x>\x00", "score": 0.0}
    file.write_text(json.dumps(results))
    text = build(tmp_path).read_text()
    assert "<script>" not in text and "&lt;script&gt;q&lt;/script&gt;" in text and "<img src=http" not in text
    assert "\x00" not in text


def test_samples_are_chosen_by_rule():
    def row(task, kind, score):
        return {"task": task, "kind": kind, "score": score, "control": None}

    rows = [row("a", kind, score) for score in [1.0] * 9 + [0.0] * 9 for kind in "xyz"]
    rows += [row("b", "k", 1.0)] * 9 + [row("c", "k", 0.0)] * 9
    chosen = choose(rows)
    assert len(chosen) == 12
    of_a = [r for r in chosen if r["task"] == "a"]
    assert len(of_a) == 4 and sum(r["score"] == 0 for r in of_a) == 1 and {r["kind"] for r in of_a} == set("xyz")
    assert [r["score"] for r in chosen if r["task"] == "c"] == [0.0] * 4, "no right ones: wrong ones fill the places"


def test_one_basis_gives_equal_colours_to_equal_features():
    torch.manual_seed(0)
    features = torch.randn(60, 16)
    basis = fit_basis(features)
    assert torch.equal(fit_basis(features).components, basis.components)
    first, second = (to_image(basis, (part, (5, 6))) for part in (features[:30], features[30:]))
    assert first.size == (6, 5)
    repeated = to_image(basis, (torch.cat([features[30:60]]), (5, 6)))
    assert repeated.tobytes() == second.tobytes() != first.tobytes()
    # as principal components are defined: orthonormal, and in order of the variance they explain
    torch.testing.assert_close(basis.components.T @ basis.components, torch.eye(3).double(), atol=1e-9, rtol=0)
    spread = ((features.double() - basis.mean) @ basis.components).var(0)
    assert spread[0] > spread[1] > spread[2]
    fit_basis(torch.randn(2, 16)), fit_basis(torch.ones(4, 2))


def test_features_come_from_the_checkpoint(run_folder):
    (features, grid), (_, long_grid) = encode(
        run_folder / "stage4", [Image.new("RGB", (64, 32), "red"), Image.new("RGB", (500, 40))]
    )
    assert features.shape == (grid[0] * grid[1], 128) and grid[1] > grid[0] and long_grid[1] > long_grid[0]


def test_charts_hold_their_data_and_survive_odd_input():
    drawing = loss_bands([Band("1 a", [(1, 2.0), (2, 1.0)], 3.0, 2.0, 1.0), Band("2 b", [(1, 1.0)]), Band("3 c", [])])
    assert "1 a" in drawing and "2 steps, 3 s" in drawing and "nan" not in drawing
    assert "0.50" in dumbbells([Dumbbell("k", "g", 0.5, [Ring("c", None)]), Dumbbell("k", "g", None, [])])
    assert [y for _, y in smooth([(0, 1.0), (1, 1.0), (2, 1.0)], 2)] == [1.0, 1.0, 1.0]
    assert ticks(4.2) == [0, 1, 2, 3, 4] and ticks(0.3)[-1] == pytest.approx(0.3)


def test_pictures():
    assert data_uri(Image.new("RGB", (2000, 10), "red")).startswith("data:image/png;base64,")
    assert [columns_for(n) for n in (1, 2, 4, 6, 8)] == [1, 2, 2, 3, 4]
