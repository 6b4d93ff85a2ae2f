"""`num_tokens` says what `encode` will return, without decoding a pixel of a picture or page."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers.pdfs import write_pages
from tests.helpers.tiny_processor import GEOMETRY, tiny_processor
from tests.helpers.video_files import write_video
from vlm.errors import SampleError
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor
from vlm.media.image import load_image
from vlm.media.sizes import image_size
from vlm.processing_radio_vlm import RadioVLMProcessor

ORIENTATION = 0x0112


def picture(mode: str, size=(70, 33)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(folder, name: str, image: Image.Image, turn: int = 1, **options):
    path = folder / name
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    image.save(path, **({"exif": exif} if turn != 1 else {}), **options)
    return path


def files(folder) -> list:
    """Pictures of many modes and formats, upright and turned."""
    made = [saved(folder, f"{mode}.png", picture(mode)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")]
    made += [saved(folder, f"cmyk{turn}.jpg", picture("CMYK"), turn) for turn in (1, 6)]
    for turn in range(1, 9):
        made += [saved(folder, f"t{turn}.{end}", picture("RGB"), turn) for end in ("jpg", "png", "webp", "tiff")]
    made += [saved(folder, f"plain.{end}", picture("RGB")) for end in ("gif", "bmp", "ppm", "ico", "tga")]
    frames = [picture("RGB", (60, 41)), picture("RGB", (31, 60))]
    frames[0].save(folder / "many.tiff", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "many.gif", save_all=True, append_images=[frames[0].rotate(90)], duration=100)
    return [*made, folder / "many.tiff", folder / "many.gif", turned_behind_the_pixels(folder)]


def turned_behind_the_pixels(folder):
    """A PNG whose EXIF chunk comes last, where Pillow finds it after decoding."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add(b"eXIf", exif.tobytes()[6:], after_idat=True)
    picture("RGB").save(image, "PNG", pnginfo=info)
    path = folder / "behind.png"
    path.write_bytes(image.getvalue())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("media")
    files(made)
    write_pages(made / "x.pdf", 3)
    write_pages(made / "one.pdf", 1)
    write_video(made / "v.mp4", 20, rate=10, size=(48, 80))
    return made


def test_sizes_of_files_and_bytes_are_those_of_the_opened_picture(folder):
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix not in (".mp4", ".pdf")]
    turned = 0
    for path in [*pictures, folder / "one.pdf"]:
        wanted = load_image(path).size[::-1]
        assert image_size(path) == image_size(path.read_bytes()) == image_size({"bytes": None, "path": path}) == wanted
        turned += wanted == (70, 33)
    assert len(pictures) > 45 and turned >= 17


def test_no_picture_is_decoded(folder, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("decoded")

    for format_class in (Image.Image, PngImagePlugin.PngImageFile):
        monkeypatch.setattr(format_class, "load", refuse)
    monkeypatch.setattr("vlm.media.pdf.render_page", refuse)
    for name in ("RGB.png", "t6.jpg", "t8.png", "t5.webp", "many.gif"):
        image_size(folder / name)
    processor = tiny_processor()
    document = {"type": "document", "document": str(folder / "x.pdf")}
    assert processor.num_tokens(conversation([document, {"type": "image", "image": str(folder / "t6.jpg")}])) > 20


def conversation(content, answer="yes", **message) -> list[dict]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer, **message}]


def conversations(folder) -> list[list[dict]]:
    """Text, pictures, pages, clips and mixtures of them."""
    names = ("RGB.png", "LA.png", "P.png", "t6.jpg", "t5.png", "t8.webp", "t7.tiff", "cmyk6.jpg", "many.tiff", "ico")
    image = lambda name: {"type": "image", "image": str(folder / name)}  # noqa: E731
    made = [conversation([image(name), {"type": "text", "text": "What?"}]) for name in names[:-1]]
    text = {"type": "text", "text": "Grüße <image> <|im_end|>"}
    document = {"type": "document", "document": str(folder / "x.pdf")}
    clip = {"type": "video", "video": str(folder / "v.mp4")}
    frames = np.zeros((5, 40, 64, 3), dtype=np.uint8)
    return [
        *made,
        conversation("no pictures " * 20),
        [{"role": "system", "content": "Be brief."}, *conversation("Q"), *conversation([text, image("t6.jpg")])],
        conversation([image("t6.jpg"), text, image("t3.jpg"), image("plain.gif")]),
        conversation([document, text]),
        conversation([{**document, "pages": "2-3", "dpi": 40, "labels": False}]),
        conversation([image("one.pdf")]),
        conversation([clip, text]),
        conversation([{**clip, "start": 0.5, "max_frames": 3}]),
        conversation([{"type": "video", "video": frames, "timestamps": [0, 0.5, 1, 1.5, 10]}, image("t6.jpg")]),
        conversation([{"type": "video", "video": [str(folder / "t6.jpg"), str(folder / "t6.jpg")]}]),
        conversation([{"type": "image", "image": picture("RGB", (200, 20))}]),
        conversation([{"type": "image", "image": (folder / "t6.png").read_bytes()}]),
        conversation("Q", reasoning_content="because of that"),
    ]


GEOMETRIES = {
    "dynamic": {},
    "bounded": {"max_prompt_patches": 48},
    "fixed": {"mode": "fixed", "size": [64, 96], "min_num_patches": None, "max_num_patches": None},
    "tiles": {"mode": "tiles", "tile_size": 64, "max_tiles": 4, "thumbnail": True},
    "multi_scale": {"mode": "multi_scale", "scales": [32, 64], "last_scale": "dynamic", "max_tiles": 4},
}
VIDEOS = [
    {},
    {"temporal_patch_size": 2, "pruning_rate": 0.4},
    {"temporal_pool": 2, "frame_labels": False, "max_frames": 4},
]


def processor_of(name: str, video: dict) -> RadioVLMProcessor:
    settings = {**GEOMETRY, **GEOMETRIES[name]}
    if settings["mode"] != "dynamic":
        settings = {key: value for key, value in settings.items() if not key.endswith("num_patches")}
    return RadioVLMProcessor(RadioVLMImageProcessor(geometry=settings), build_byte_tokenizer(), video=video)


@pytest.mark.parametrize("video", VIDEOS, ids=["plain", "pruned tubelets", "pooled"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_length_is_that_of_encode(folder, name, video):
    processor = processor_of(name, video)
    lengths = set()
    for messages in conversations(folder):
        for options in ({}, {"add_generation_prompt": True}, {"pruning_rate": 0.6}):
            try:
                wanted = processor.encode(messages, **options)
            except SampleError as error:
                with pytest.raises(SampleError) as found:
                    processor.num_tokens(messages, **options)
                assert (found.value.reason, found.value.message) == (error.reason, error.message)
                continue
            found = processor.encode_text(messages, **options)
            assert processor.num_tokens(messages, **options) == len(wanted["input_ids"])
            assert set(wanted) - set(found) <= {"pixel_values", "pixel_values_videos"}
            assert all(torch.equal(found[key], wanted[key]) for key in found)
            lengths.add(len(wanted["input_ids"]))
    assert len(lengths) > 10


def test_template_variables_and_templates_count(folder):
    processor = tiny_processor()
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}|{% endfor %}"
    messages = conversations(folder)[0]
    for options in ({"tools": [{"name": "zoom"}]}, {}):
        options = {**options, "chat_template": template, "return_labels": False}
        assert processor.num_tokens(messages, **options) == len(processor.encode(messages, **options)["input_ids"])


def test_errors_are_those_of_encode(folder, tmp_path):
    processor = tiny_processor()
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    image = lambda path: [{"type": "image", "image": str(path)}]  # noqa: E731
    cases = [
        (conversation(image(tmp_path / "none.png")), {}),
        (conversation(image(empty)), {}),
        (conversation(image(text)), {}),
        (conversation(image(folder / "x.pdf")), {}),
        (conversation([{"type": "document", "document": str(folder / "x.pdf"), "pages": "9"}]), {}),
        (conversation([{"type": "video", "video": str(text)}]), {}),
        (conversation([{"type": "image"}]), {}),
        (conversation("long " * 50), {"max_length": 20}),
        ([{"role": "user", "content": "Q"}], {}),
        ([], {}),
    ]
    for messages, options in cases:
        with pytest.raises(SampleError) as wanted:
            processor.encode(messages, sample_id="s", **options)
        with pytest.raises(SampleError) as found:
            processor.num_tokens(messages, sample_id="s", **options)
        assert vars(found.value) == vars(wanted.value)
