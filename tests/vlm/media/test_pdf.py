"""PDF pages: what is rendered, how large, and every way in which a file can be bad."""

import io
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from tests.helpers.pdfs import box, encrypted_pdf, page, pdf, stream, words, write_pages
from tests.helpers.shared import shared_path
from vlm.errors import SampleError
from vlm.media import load_image, open_document
from vlm.media.pdf import DPI, count_pages, is_pdf, page_size, render_page

pytest.importorskip("pypdfium2", reason="optional package absent")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def refused(data: bytes, reason: str, path: Path) -> SampleError:
    """Each door refuses the file, by name and reason."""
    path.write_bytes(data)
    for door in (count_pages, open_document, load_image):
        with pytest.raises(SampleError) as caught:
            door(path)
        assert caught.value.reason == reason and caught.value.path == str(path), (door, caught.value)
    with pytest.raises(SampleError) as caught:
        open_document(data)
    assert caught.value.reason == reason and caught.value.path is None
    return caught.value


def test_size_follows_dpi_and_colours_stand_where_they_were_drawn():
    data = pdf([page(box("red", 0, 0, 36, 36), (144, 72))])  # the lower left corner
    for dpi, size in ((72, (144, 72)), (144, (288, 144)), (100, (200, 100)), (36.5, (73, 37))):
        image = render_page(data, 1, dpi)
        assert image.mode == "RGB" and image.size == size and page_size(data, 1, dpi) == size[::-1]
        assert image.getpixel((2, image.height - 3)) == RED
        assert image.getpixel((2, 2)) == image.getpixel((image.width - 3, image.height - 3)) == WHITE
    assert render_page(data, 1).size == (144 * DPI // 72, DPI)


CORNERS = [(0, (2, -3)), (90, (2, 2)), (180, (-3, 2)), (270, (-3, -3)), (-90, (-3, -3))]


@pytest.mark.parametrize(("turn", "corner"), CORNERS)
def test_rotation(turn: int, corner: tuple[int, int]):
    """/Rotate turns clockwise: a box in the lower left corner goes to the upper left at 90 degrees."""
    image = render_page(pdf([page(box("red", 0, 0, 10, 10), (80, 40), Rotate=str(turn))]), 1, 72)
    assert image.size == ((40, 80) if turn % 180 else (80, 40))
    x, y = corner[0] % image.width, corner[1] % image.height
    assert image.getpixel((x, y)) == RED and (np.asarray(image)[..., 1] < 128).sum() == 100


def test_crop_box():
    drawn = f"{box('red', 0, 0, 72, 72)} {box('blue', 20, 30, 10, 10)}"
    image = render_page(pdf([page(drawn, CropBox="[20 30 30 40]")]), 1, 72)
    assert image.size == (10, 10) and image.getcolors() == [(100, BLUE)]


def test_annotations_and_form_fields_are_drawn():
    looks = stream(box("green", 0, 0, 20, 20), "/Type /XObject /Subtype /Form /BBox [0 0 20 20]")
    stamp = "<< /Type /Annot /Subtype /Stamp /Rect [10 10 30 30] /F 4 /AP << /N 11 0 R >> >>"
    field = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (n) /V (x) /Rect [40 40 60 60] /F 4 /AP << /N 11 0 R >> >>"
    marked = pdf([page(Annots="[10 0 R]")], [stamp, looks])
    assert render_page(marked, 1, 72).getpixel((20, 72 - 20)) == GREEN
    form = pdf([page(Annots="[10 0 R]")], [field, looks], catalog="/AcroForm << /Fields [10 0 R] >>")
    shown = render_page(form, 1, 72).getpixel((50, 72 - 50))
    assert shown != WHITE and shown[1] > 200, shown  # PDFium tints form fields
    assert render_page(pdf([page()]), 1, 72).getcolors() == [(72 * 72, WHITE)], "control"


def test_text_is_drawn():
    image = render_page(pdf([page(words("Hello"))]), 1)
    assert 100 < (np.asarray(image.convert("L")) < 128).sum() < 3000


def test_a_plot_looks_like_its_picture():
    """matplotlib draws the same figure as PDF and as PNG: fonts, curves and colours agree, another figure does not."""
    pytest.importorskip("matplotlib", reason="optional package absent")
    from matplotlib.figure import Figure

    shown = {}
    for bars in ((3, 1, 2), (1, 2, 3)):
        figure = Figure(figsize=(4, 3))
        axes = figure.add_subplot(title="Revenue", ylabel="million")
        axes.bar(["a", "b", "c"], bars, color=["tab:red", "tab:green", "tab:blue"])
        for kind in ("pdf", "png"):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=100)
            data = file.getvalue()
            image = open_document(data, dpi=100)[0].open()
            assert image.size == (400, 300)
            shown[bars, kind] = np.asarray(image.resize((100, 75), Image.Resampling.BOX)).astype(float)
    first, second = (3, 1, 2), (1, 2, 3)
    assert np.abs(shown[first, "pdf"] - shown[first, "png"]).mean() < 2
    assert np.abs(shown[first, "pdf"] - shown[second, "png"]).mean() > 10, "control"


def test_real_pictures_printed_to_pdf_come_back(tmp_path: Path):
    paths = sorted((shared_path("data/charts") / "images").glob("*.png"))[:3]
    pictures = [load_image(path) for path in paths]
    assert len(pictures) == 3
    pictures[0].save(tmp_path / "x.pdf", save_all=True, append_images=pictures[1:], resolution=144, quality=95)
    pages = [ref.open() for ref in open_document(tmp_path / "x.pdf", dpi=144)]
    for page_image, image in zip(pages, pictures, strict=True):
        assert all(abs(a - b) <= 1 for a, b in zip(page_image.size, image.size))
        small = [np.asarray(one.resize((200, 200), Image.Resampling.BOX)).astype(float) for one in (page_image, image)]
        assert np.abs(small[0] - small[1]).mean() < 3


def test_pages_are_their_own_and_lazily_opened(tmp_path: Path):
    path = write_pages(tmp_path / "x.pdf")
    refs = open_document(path)
    assert [ref.number for ref in refs] == [1, 2, 3] and {ref.path for ref in refs} == {str(path)}
    images = [ref.open() for ref in refs]
    assert [image.getpixel((4 + 16 * n, image.height - 4)) for n, image in enumerate(images)] == [RED, GREEN, BLUE]
    assert [ref.size() for ref in refs] == [(144, 144)] * 3
    again = pickle.loads(pickle.dumps(refs))
    assert again == refs and again[2].open().tobytes() == images[2].tobytes()
    assert len(pickle.dumps(refs[0])) < 1000 and not hasattr(refs[0], "__fspath__")
    assert repr(refs[1]) == f"PageRef({path}, page 2)" and repr(open_document(path.read_bytes())[0]).count("\\x") == 0
    os.unlink(path)
    with pytest.raises(SampleError) as caught:
        refs[0].open()
    assert (caught.value.path, caught.value.reason) == (str(path), "missing_file"), "nothing was kept open"


def test_bytes_and_files_agree(tmp_path: Path):
    path = write_pages(tmp_path / "named.png")  # a wrong suffix: contents decide
    data = path.read_bytes()
    with path.open("rb") as file:
        sources = [path, str(path), data, {"bytes": data, "path": None}, {"path": str(path)}, file]
        pages = [open_document(source, 2)[0].open().tobytes() for source in sources]
    assert len(set(pages)) == 1
    assert is_pdf(b"\r\n junk before " + data) and not is_pdf(b"\x89PNG\r\n\x1a\n" + data)
    assert open_document(b"\n\n" + data, [2])[0].open().tobytes() == pages[0]


def test_a_huge_page_is_rendered_at_fewer_dpi(caplog):
    caplog.set_level(logging.WARNING)
    data = pdf([page(box("red", 0, 0, 7200, 14400), (14400, 14400))])  # 200 x 200 inches: 829 megapixels at 144 dpi
    image = render_page(data, 1, 144, max_pixels=1_000_000)
    assert 990_000 < image.width * image.height <= 1_000_000
    assert page_size(data, 1, 144, max_pixels=1_000_000) == image.size[::-1]
    assert image.getpixel((5, 5)) == RED and image.getpixel((image.width - 5, 5)) == WHITE, "the whole page is there"
    assert "page 1" in caplog.text and "rendered at 5" in caplog.text
    height, width = page_size(data, 1)
    assert height * width <= 2**25
    thin = pdf([page(size=(2, 14400))])
    assert render_page(thin, 1, 72, max_pixels=1000).size == (1, 500) or page_size(thin, 1, 72, 1000)[0] <= 1000


def test_a0_at_the_default_dpi_is_not_reduced():
    assert page_size(pdf([page(size=(2384, 3370))]), 1) == (6740, 4768)


# ---- bad files ------------------------------------------------------------------------------------------------------


def test_encrypted(tmp_path: Path):
    error = refused(encrypted_pdf("secret"), "encrypted_pdf", tmp_path / "x.pdf")
    assert "password" in str(error)
    assert len(open_document(encrypted_pdf(""))) == 1, "control: an empty password opens by itself"


def test_damaged(tmp_path: Path):
    whole = pdf([page(words("Hello"))])
    refused(b"%PDF-1.4\n" + bytes(range(256)) * 8, "unreadable_pdf", tmp_path / "noise.pdf")
    refused(whole[:60], "unreadable_pdf", tmp_path / "cut.pdf")
    lost = whole.replace(b"startxref\n", b"startxref\n9")
    assert lost != whole and open_document(lost)[0].open().size == (144, 144), "a lost table is rebuilt"


def test_no_pages(tmp_path: Path):
    import pypdfium2

    made = pypdfium2.PdfDocument.new()
    made.save(tmp_path / "made.pdf")
    refused((tmp_path / "made.pdf").read_bytes(), "no_pages", tmp_path / "x.pdf")
    refused(pdf([]), "no_pages", tmp_path / "x.pdf")


def test_a_page_that_is_none(tmp_path: Path):
    path = tmp_path / "x.pdf"
    path.write_bytes(pdf([page(), page()]).replace(b"102 0 obj\n<< /Type /Page ", b"102 0 obj\n<< /Tipe /Paje ", 1))
    refs = open_document(path)
    assert refs[0].open().size == (144, 144)
    path.write_bytes(path.read_bytes().replace(b"102 0 obj", b"199 0 obj"))
    with pytest.raises(SampleError, match="page 2") as caught:
        refs[1].open()
    assert caught.value.path == str(path) and caught.value.reason == "unreadable_pdf"
    write_pages(path, 1)  # the file changed since it was looked at
    with pytest.raises(SampleError, match="page 2 is not in a PDF of 1 pages") as caught:
        refs[1].open()
    assert caught.value.reason == "bad_pages"


def test_missing_and_empty(tmp_path: Path):
    (tmp_path / "empty.pdf").touch()
    for name, reason in (("nowhere.pdf", "missing_file"), ("empty.pdf", "empty_file")):
        with pytest.raises(SampleError) as caught:
            open_document(tmp_path / name)
        assert caught.value.reason == reason and name in str(caught.value)


@pytest.mark.parametrize("dpi", [0, -1, float("nan"), "144", True, None, 1e9])
def test_bad_dpi(dpi):
    with pytest.raises(SampleError, match="dpi") as caught:
        open_document(pdf([page()]), dpi=dpi)
    assert caught.value.reason == "bad_dpi"


# ---- as an image ----------------------------------------------------------------------------------------------------


def test_as_an_image(tmp_path: Path):
    """One page is a picture; of several nobody says which."""
    one = write_pages(tmp_path / "one.pdf", 1)
    assert load_image(one).tobytes() == open_document(one)[0].open().tobytes()
    many = write_pages(tmp_path / "many.pdf")
    with pytest.raises(SampleError, match="PDF of 3 pages.*'document'") as caught:
        load_image(many)
    assert caught.value.reason == "many_pages" and caught.value.path == str(many)
    assert load_image(pdf([page(size=(1000, 1000))]), max_pixels=10_000).size == (100, 100)


# ---- threads and workers --------------------------------------------------------------------------------------------


def test_many_threads_render_as_one(tmp_path: Path):
    refs = open_document(write_pages(tmp_path / "x.pdf", 12))
    alone = [ref.open().tobytes() for ref in refs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda ref: ref.open().tobytes(), refs * 4))
    assert together == alone * 4 and len(set(alone)) == 12


def read_page(ref) -> bytes:
    return ref.open().tobytes()


class Pages:
    """A dataset of pages, for workers."""

    def __init__(self, refs):
        self.refs = refs

    def __len__(self):
        return len(self.refs)

    def __getitem__(self, index):
        return read_page(self.refs[index])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers(tmp_path: Path, context: str):
    refs = open_document(write_pages(tmp_path / "x.pdf", 4))
    alone = [read_page(ref) for ref in refs]
    loader = DataLoader(Pages(refs), batch_size=2, num_workers=1, collate_fn=list, multiprocessing_context=context)
    assert [data for batch in loader for data in batch] == alone


def test_a_child_forked_while_the_lock_is_held_can_render():
    from vlm.media import pdf as module

    data = pdf([page()])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(module._lock.acquire).result()  # another thread is rendering
        child = os.fork()
        if child == 0:
            os._exit(0 if render_page(data, 1, 72).size == (72, 72) else 1)
        pool.submit(module._lock.release).result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_pypdfium2(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(ImportError, match="radio-vlm\\[documents\\]"):
        open_document(pdf([page()]))
    assert load_image(Image.new("RGB", (2, 2))).size == (2, 2), "pictures need none"
