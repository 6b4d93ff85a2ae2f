"""Real receipts, tables, charts, videos, PDF and DICOM files through the documented commands, where the data is there.

The scores of a tiny model are low and only reported; what is promised is that nothing crashes and nothing is lost.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.check.targets import Number
from vlm.media import load_image

PYTHON = sys.executable
STEPS = 50
PRINTED = ("misc_docs/cord_test_receipt_00004.png", "misc_docs/donut_document.png", "sroie_receipts/images/000.jpg")
SETS = {"sroie_receipts": "anls", "pubtabnet": "anls", "charts": "relaxed_accuracy"}
CHATS = {
    "receipt photo": ("--image", "misc_docs/cord_test_receipt_00004.png"),
    "scanned receipt": ("--image", "sroie_receipts/images/000.jpg"),
    "10-bit H.264": ("--video", "videos/torchcodec_h264_10bits.mp4"),
    "10-bit H.265": ("--video", "videos/torchcodec_h265_10bits.mp4"),
    "AV1": ("--video", "videos/torchcodec_av1_video.mkv"),
    "yuv444p": ("--video", "videos/imageio_cockatoo.mp4"),
    "real video": ("--video", "videos/intel_car-detection.mp4"),
    "CT DICOM": ("--image", "dicom/CT_small.dcm"),
    "compressed DICOM": ("--image", "dicom/693_J2KR.dcm"),
}


def command(root: Path, *words: object) -> tuple[int, str, str]:
    """Exit code, output and the command as typed."""
    typed = [str(word) for word in words]
    done = subprocess.run(typed, cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, " ".join(typed)


def print_pages(shared: Path, path: Path) -> Path:
    """Real receipts and a letter as the pages of one PDF."""
    first, *rest = (load_image(shared / name) for name in PRINTED)
    first.save(path, save_all=True, append_images=rest, resolution=144)
    return path


def real_files(root: Path, shared: Path, out: Path, demo_out: Path) -> list[Number]:
    """Converts, checks, trains 50 steps of stage 2, scores the held-out part, chats about real files."""
    shutil.rmtree(out, ignore_errors=True)
    numbers, sources = [], []
    for name in SETS:
        code, text, _ = command(root, PYTHON, "-m", "training.data.convert", shared / name / "labels.jsonl", out / name)
        assert code == 0, text
        train = out / name / "train"
        sources.append(f"{{path: {train.resolve()}}}")
        code, text, typed = command(root, PYTHON, "-m", "vlm", "check-data", train, "--model", demo_out / "stage1")
        numbers.append(Number(f"real files: check-data {name}, exit code", "", code, typed))

    launcher = Path(PYTHON).with_name("deepspeed")
    started = time.monotonic()
    overrides = (
        *(f"model={demo_out}/stage1", f"output_dir={out}/stage2", f"data.sources=[{', '.join(sources)}]"),
        *("data.eval_sources=[]", "data.max_length=2048", f"train.max_steps={STEPS}"),
    )
    script = ("training/stage2.py", "--config", "training/recipes/tiny/stage2.yaml")
    code, text, typed = command(root, launcher, "--num_accelerators", 2, *script, *overrides)
    assert code == 0, text[-3000:]
    numbers.append(Number(f"real files: {STEPS} steps of stage 2, seconds", "", time.monotonic() - started, typed))
    bad = json.loads((out / "stage2/throughput.json").read_text())["data"]["num_bad"]
    numbers.append(Number("real files: bad samples in training", "", bad, typed))

    for name, metric in SETS.items():
        result = out / f"{name}.json"
        words = ("--model", out / "stage2", "--data", out / name / "test", "--metric", metric, "--out", result)
        code, text, typed = command(root, PYTHON, "eval/run.py", *words)
        assert code == 0, text[-3000:]
        (figures,) = json.loads(result.read_text())["tasks"].values()
        numbers.append(Number(f"real files: {name} {metric} on {figures['n']} held out", "", figures[metric], typed))

    crashed = 0
    chats = {name: (flag, shared / file) for name, (flag, file) in CHATS.items()}
    chats["PDF of real pages"] = ("--document", print_pages(shared, out / "pages.pdf"), "--pages", "1,3")
    for name, media in chats.items():
        words = ("--model", demo_out / "export", *media, "--question", "What is this?")
        code, text, _ = command(root, PYTHON, "-m", "vlm", "chat", *words, "--max-new-tokens", 12)
        crashed += code != 0 or "Traceback" in text
        print(f"{name}: {text.strip().splitlines()[-1] if text.strip() else '(empty answer)'}")
    return [*numbers, Number(f"real files: {len(chats)} chats, crashes", "<= 0", crashed, "radio-vlm chat")]
