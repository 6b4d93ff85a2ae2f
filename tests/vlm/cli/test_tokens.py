"""`radio-vlm tokens`: its numbers are those that processor and model emit, its sizes those that the readers give."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from projectors.components import keeps_places, num_tokens, projector_names
from tests.helpers.tiny_vlm import build_tiny
from vlm.cli.main import build_parser
from vlm.cli.token_costs import FOLDS, Geometry, Projector, Video, bill, geometries, projectors
from vlm.cli.token_inputs import Sampling, TokenInput, read_input, visual_count
from vlm.cli.token_tables import columns, share
from vlm.cli.tokens import run as run_tokens
from vlm.errors import RadioVLMError, SampleError
from vlm.geometry import GEOMETRIES, check_geometry

pytest.importorskip("av", reason="optional package absent")
pytest.importorskip("pypdfium2", reason="optional package absent")

# every mode of the geometry, small enough for a model of three layers
MODES = {
    "dynamic": {"min_num_patches": 4, "max_num_patches": 64},
    "bounded": {"min_num_patches": 4, "max_num_patches": 64, "max_prompt_patches": 60},
    "fixed": {"mode": "fixed", "size": [96, 64]},
    "tiles": {"mode": "tiles", "tile_size": 64, "max_tiles": 6},
    "multi_scale": {"mode": "multi_scale", "scales": [64, 128], "max_tiles": 6},
}
SMALL_VIDEO = {"max_frames": 6, "fps": 2.0, "max_num_patches": 16, "frame_labels": False}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """name -> path: a picture, a turned photo, a TIFF and a PDF of several pages, a clip."""
    from tests.helpers.pdfs import page, pdf
    from tests.helpers.video_files import write_video

    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(0).integers(0, 255, (120, 75, 3), dtype=np.uint8)
    found = {"plain": folder / "plain.png", "phone": folder / "phone.jpg", "fax": folder / "fax.tiff"}
    Image.fromarray(noise).save(found["plain"])
    turned = Image.fromarray(noise)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(found["phone"], exif=exif)
    pages = [Image.new("L", size) for size in ((40, 80), (80, 40), (40, 80))]
    pages[0].save(found["fax"], save_all=True, append_images=pages[1:])
    found["report"] = folder / "report.pdf"
    found["report"].write_bytes(pdf([page(size=(60, 90))] * 3 + [page(size=(90, 60))]))
    found["clip"] = write_video(folder / "clip.mp4", 50, rate=10, size=(48, 80))
    return found


def arguments(*words):
    return build_parser().parse_args(["tokens", *map(str, words)])


def run_json(tmp_path, *words) -> dict:
    assert run_tokens(arguments(*words, "--json", tmp_path / "t.json")) == 0
    return json.loads((tmp_path / "t.json").read_text())


# ---- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", projector_names())
def test_a_bill_is_what_processor_and_model_emit(kind, mode, media):
    """For each projector and geometry: placeholders, patches and projected features of a photo and of a clip."""
    model, processor = build_tiny(geometry=MODES[mode], projector={"type": kind}, video=SMALL_VIDEO)
    choice, form = Projector(kind, processor.projector_config), Geometry(mode, processor.image_processor.geometry)
    video = Video.of(processor.video)
    for name, medium in (("phone", "image"), ("clip", "video")):
        item = [{"type": medium, medium: str(media[name])}]
        source = read_input(media[name], Sampling(fps=2.0, max_frames=6))
        row = bill(source, form, [choice], video)
        if row.error:  # the bound of the prompt is too small for the clip: so says the processor
            assert mode == "bounded" and name == "clip"
            with pytest.raises(SampleError, match="max_prompt_patches"):
                processor.encode([{"role": "user", "content": item}], return_labels=False)
            continue
        sample = processor.encode([{"role": "user", "content": item}], return_labels=False)
        assert row.costs[kind].tokens == visual_count(sample["mm_token_type_ids"]) > 0
        patches = [sample[key] for key in ("pixel_values", "pixel_values_videos") if key in sample]
        assert row.patches == len(patches[0])
        with torch.inference_mode():
            out = model(**processor.collate([sample]))  # raises where placeholders and features differ
        assert torch.isfinite(out.logits).all()


@pytest.mark.parametrize(
    "temporal", [{"pruning_rate": 0.7}, {"temporal_pool": 4}, {"temporal_patch_size": 2, "pruning_rate": 0.4}], ids=str
)
def test_video_settings_count_as_the_processor_counts(temporal, media):
    geometry = {"min_num_patches": 4, "max_num_patches": 64}
    _, processor = build_tiny(geometry=geometry, video={**SMALL_VIDEO, **temporal})
    choice = Projector("p", processor.projector_config)
    source = read_input(media["clip"], Sampling(fps=2.0, max_frames=6))
    row = bill(source, Geometry("g", processor.image_processor.geometry), [choice], Video.of(processor.video))
    content = [{"type": "video", "video": str(media["clip"])}]
    sample = processor.encode([{"role": "user", "content": content}], return_labels=False)
    assert row.costs["p"].kept == visual_count(sample["mm_token_type_ids"])
    plain = bill(source, Geometry("g", processor.image_processor.geometry), [choice], Video(1, 16))
    assert row.costs["p"].kept < plain.costs["p"].kept, "the settings do something"


def test_with_a_model_the_file_is_really_encoded(media, tmp_path, capsys):
    for part in build_tiny(geometry=MODES["tiles"], video=SMALL_VIDEO, projector={"type": "spatial_to_channel"}):
        part.save_pretrained(tmp_path / "model")
    capsys.readouterr()
    files = [media[name] for name in ("plain", "phone", "fax", "report", "clip")]
    found = run_json(tmp_path, *files, "--model", tmp_path / "model", "--dpi", 72, "--pruning-rate", 0.5)
    assert len(found["files"]) == 5 and list(found["projectors"]) == ["spatial_to_channel 2"]
    for entry in found["files"]:
        (row,) = entry["geometries"].values()
        (cost,) = row["projectors"].values()
        assert cost.get("kept", cost["tokens"]) == entry["encoded"]["visual_tokens"]
        assert entry["encoded"]["prompt_tokens"] > entry["encoded"]["visual_tokens"]
    assert found["video"]["pruning_rate"] == 0.5 and found["files"][4]["frames"] == 6
    with pytest.raises(RadioVLMError, match="--temporal-pool: with --model"):
        run_tokens(arguments(media["plain"], "--model", tmp_path / "model", "--temporal-pool", 2))


def test_documents_share_the_bound_of_a_prompt(media, tmp_path, capsys):
    words = ("--geometry", "min_num_patches=4", "max_num_patches=64", "max_prompt_patches=100", "--dpi", 144)
    found = run_json(tmp_path, media["report"], *words)
    row = found["files"][0]["geometries"]["dynamic"]
    assert row["patches"] <= 100 and "shrink" in row["message"]
    assert row["message"] in capsys.readouterr().out


# ---- sizes --------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_opened_files(media):
    from vlm.media import load_image, load_video, open_document

    sampling = Sampling(fps=4.0, max_frames=9, start=1.0, end=4.0, dpi=100)
    for name in ("plain", "phone"):
        assert read_input(media[name], sampling).sizes == (load_image(media[name]).size[::-1],)
    assert read_input(media["phone"], sampling).sizes == ((75, 120),), "a turned photo lies on its side"
    for name in ("fax", "report"):
        source = read_input(media[name], sampling)
        assert source.kind == "document"
        assert source.sizes == tuple(page.open().size[::-1] for page in open_document(media[name], dpi=100))
    clip = load_video(media["clip"], max_frames=9, fps=4.0, start=1.0, end=4.0)
    source = read_input(media["clip"], sampling)
    assert source.frames == len(clip) == 9 and source.sizes == (tuple(clip.frames.shape[-2:]),)


def test_a_slow_video_has_no_more_frames_than_it_has(tmp_path):
    from tests.helpers.video_files import write_video
    from vlm.media import load_video

    path = write_video(tmp_path / "slow.mp4", 7, rate=1, size=(32, 32))
    assert read_input(path, Sampling(fps=4.0)).frames == len(load_video(path, 128, 4.0)) == 7


def test_an_animation_is_a_video_and_a_still_gif_a_picture(tmp_path):
    frames = [Image.new("RGB", (40, 30), (60 * i, 0, 0)) for i in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    frames[0].save(tmp_path / "b.gif")
    moving, still = (read_input(tmp_path / name, Sampling()) for name in ("a.gif", "b.gif"))
    assert (moving.kind, moving.frames, moving.sizes) == ("video", 4, ((30, 40),))
    assert (still.kind, still.sizes) == ("image", ((30, 40),))


def test_pages_and_each(media, tmp_path):
    found = run_json(tmp_path, media["report"], "--pages", "2-4", "--each", "--geometry", "fixed-512")
    assert [entry["file"].rpartition(", ")[2] for entry in found["files"]] == ["page 2", "page 3", "page 4"]
    assert found["files"][2]["sizes_hw"] == [[120, 180]]


def test_pixels_are_not_decoded(tmp_path, monkeypatch, media):
    """A picture whose pixels cannot be decoded is still measured; so is a PDF that must not be rendered."""
    whole = media["phone"].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert read_input(tmp_path / "cut.jpg", Sampling()).sizes == ((75, 120),)
    monkeypatch.setattr("vlm.media.pages.render_page", lambda *_: pytest.fail("rendered"))
    assert len(read_input(media["report"], Sampling()).sizes) == 4


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_files_are_named_and_the_others_still_measured(tmp_path, media, capsys):
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.txt").write_text("no picture at all, only words\n" * 50)
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.4\nnothing")
    files = [tmp_path / name for name in ("missing.png", "empty.png", "words.txt", "torn.pdf")]
    assert run_tokens(arguments(*files, media["plain"])) == 2
    out, error = capsys.readouterr()
    assert "plain.png: image of 75×120" in out
    for path in files:
        assert str(path) in error
    for words in ("no such file", "is empty", "neither a picture", "cannot open PDF"):
        assert words in error


def test_an_image_above_the_limit_is_refused_as_it_would_be_when_opened(tmp_path, monkeypatch, media):
    monkeypatch.setattr("vlm.media.image.MAX_PIXELS", 1000)
    with pytest.raises(SampleError, match="larger than max_pixels") as caught:
        read_input(media["plain"], Sampling())
    assert caught.value.reason == "too_large" and caught.value.path == str(media["plain"])


@pytest.mark.parametrize(
    "words, message",
    [
        (("--geometry", "nemotron"), "unknown nemotron; known: .*nemotron-omni"),
        (("--geometry", "mode=tiles", "tile_size=100"), "tile_size=100 must be a multiple"),
        (("--projector", "type=pixelshuffle"), "unknown projector 'pixelshuffle'"),
        (("--projector", "type=mlp", "downsmaple=2"), "unknown key downsmaple; known: .*downsample"),
        (("--pruning-rate", "1"), r"must be a share of video tokens in \[0, 1\)"),
        (("--fps", "0"), "must be above 0"),
        (("--max-frames", "0"), "must be above 0"),
        (("--start", "5", "--end", "2"), "--start 5 must be before --end 2"),
        (("--temporal-pool", "0"), "numbers from 1 on"),
    ],
)
def test_bad_options(words, message, media):
    with pytest.raises(RadioVLMError, match=message):
        run_tokens(arguments(media["plain"], *words))


def test_a_file_behind_the_names_of_geometries_is_explained(media):
    with pytest.raises(RadioVLMError, match="files stand before the options"):
        run_tokens(arguments(media["plain"], "--geometry", "nvila", media["plain"]))


def test_bad_pages_and_ranges_name_the_file(media, capsys):
    assert run_tokens(arguments(media["report"], "--pages", "9")) == 2
    assert "report.pdf: page 9 is not in a document of 4 pages" in capsys.readouterr().err
    assert run_tokens(arguments(media["clip"], "--start", "60")) == 2
    assert "is no range of a video of 5.00 s" in capsys.readouterr().err


# ---- the table ----------------------------------------------------------------------------------------------------


def test_all_named_geometries_and_all_projectors_are_in_the_table(media, capsys):
    assert run_tokens(arguments(media["plain"], media["report"], media["clip"], "--pruning-rate", 0.75)) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in GEOMETRIES) and all(name in out for name in projector_names())
    assert max(map(len, out.split("token_merging: video")[0].splitlines())) <= 120
    assert "4 pages of 2 sizes" in out and "EVS at 0.75 keeps" in out
    assert "512²" in out, "thumbnails and scales are shown"


def test_settings_come_from_the_registry():
    names = [choice.name for choice in projectors()]
    for kind in projector_names():
        folds = isinstance(projectors({"type": kind})[0].config.get("downsample"), int)
        own = [name for name in names if name.split()[0] == kind]
        assert own == ([f"{kind} {n}" for n in FOLDS] if folds and kind != "mlp" else [kind])


def test_columns_join_equal_costs_and_never_different_ones():
    rows = [bill(TokenInput("f", "image", ((700, 500),)), form, projectors(), Video()) for form in geometries([])]
    found = columns(projectors(), rows)
    assert sorted(name for column in found for name in column.members) == sorted(c.name for c in projectors())
    for column in found:
        for row in rows:
            assert len({row.costs[name].tokens for name in column.members}) == 1
    assert len({column.name for column in found}) == len(found)
    by_member = {name: column.name for column in found for name in column.members}
    assert [by_member[name] for name in ("mlp", "pixel_shuffle 2", "pixel_shuffle 4")] == ["all", "1/4", "1/16"]


def test_pruning_of_tokens_without_places_is_no_number(media):
    source = TokenInput("v", "video", ((240, 320),), frames=8)
    choices = projectors()
    row = bill(source, geometries(["fixed-512"])[0], choices, Video(pruning_rate=0.75))
    pooled = bill(source, geometries(["fixed-512"])[0], choices, Video(temporal_pool=2))
    for choice in choices:
        has = keeps_places(choice.config)
        assert (row.costs[choice.name].kept is None) == (not has) and row.costs[choice.name].tokens > 0
        assert (pooled.costs[choice.name].error is None) == has


def test_share_names_what_is_left():
    named = {choice.name: share(choice.config)[0] for choice in projectors()}
    assert named["linear"] == "all" and named["average_pool 3"] == "1/9"
    assert named["resampler"] == f"{num_tokens(projectors({'type': 'resampler'})[0].config, 8, 8)} a map"


def test_a_geometry_that_a_projector_cannot_take_is_said_and_the_rest_counted(media):
    config = projectors({"type": "pixel_shuffle", "downsample": 3, "odd_grids": "reject"})[0]
    rows = {form.name: bill(read_input(media["plain"], Sampling()), form, [config], Video()) for form in geometries([])}
    assert "multiple" in rows["fixed-512"].costs[config.name].error
    assert rows["nemotron-omni"].costs[config.name].tokens > 0, "a free grid is planned in multiples of 3"
    assert check_geometry(GEOMETRIES["nemotron-omni"])["multiple"] == 2
