"""The numbers medical images promise: every real DICOM opens as its label says or is refused with the reason, and
2,000 damaged DICOM and NIfTI files cause no crash, no hang and no flood of memory.

The damaged files are read in a process of its own, so that a crash of a decoder is counted, not suffered. Without the
real files those written here alone are damaged.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402
from tests.helpers.medical_files import body, new_dataset, save, write_enhanced, write_nifti  # noqa: E402
from tests.helpers.mutations import mutate, read_medical, survive  # noqa: E402

COMMAND = "python tests/check/medical_image_numbers.py"
COUNT = 2000
SECONDS, MEGABYTES, WHOLE = 20, 1024, 3000  # a file, all files, the process
LARGE = 300_000  # bytes; real files above it take turns less often
# Of the real files that have no label: what must come out.
UNLABELLED = {
    "JLSN_RGB_ILV0.dcm": ("missing_codec", None),
    "MR_small.dcm": ("", (64, 64)),
    "OT-PAL-8-face.dcm": ("", (480, 640)),
    "liver.dcm": ("not_an_image", None),
    "mlut_18.dcm": ("", (512, 512)),
    "vlut_04.dcm": ("", (512, 512)),
}


def medical_image_numbers(shared: Path | None = None) -> list[Number]:
    """Rows for runs/check/numbers.json; those on real files only where `shared`/data/dicom is."""
    folder = None if shared is None else Path(shared) / "data/dicom"
    folder = folder if folder is not None and folder.is_dir() else None
    return [*(real_numbers(folder) if folder else []), *mutation_numbers(folder)]


def real_numbers(folder: Path) -> list[Number]:
    """Opened, refused and wrong of the real files."""
    from vlm.errors import SampleError
    from vlm.media.dicom import read_dicom

    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    labels = {label["image"]: label for label in labels}
    opened, refused, wrong = 0, 0, []
    for path in sorted(folder.glob("*.dcm")):
        try:
            scan = read_dicom(path)
        except SampleError as error:
            refused += 1
            print(f"{path.name}: refused, {error.message}")
            known = UNLABELLED.get(path.name, ("missing_codec", None))[0]
            if error.reason != known or len(error.message) < 20:
                wrong.append(path.name)
            continue
        opened += 1
        print(f"{path.name}: {scan.modality} {scan.array.shape} {scan.header.get('PhotometricInterpretation')}")
        if not _as_labelled(scan, labels.get(path.name), UNLABELLED.get(path.name)):
            wrong.append(path.name)
    if wrong:
        print(f"wrong: {', '.join(wrong)}")
    return [
        Number("real DICOM files opened", "", opened, COMMAND),
        Number("real DICOM files refused with the reason", "", refused, COMMAND),
        Number("real DICOM files, in all", ">= 23", opened + refused, COMMAND),
        Number("real DICOM files neither as labelled nor refused with the reason", "<= 0", len(wrong), COMMAND),
    ]


def _as_labelled(scan, label: dict | None, known: tuple | None) -> bool:
    if label is None:
        return known is None or scan.array.shape[:2] == known[1]
    return (
        scan.modality in label["answers"]
        and scan.array.shape[:2] == (label["rows"], label["columns"])
        and scan.header.get("PhotometricInterpretation") == label["photometric"]
        and scan.num_frames == label["frames"]
        and scan.header.get("BodyPartExamined", "") == label["body_part"].replace(" ", "")
    )


def mutation_numbers(folder: Path | None) -> list[Number]:
    """Damages and reads `COUNT` files in another process."""
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, __file__, "--mutations", out, *([str(folder)] if folder else [])]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(words, cwd=ROOT, env=environment, timeout=WHOLE, capture_output=True, text=True)
            report = Path(out) / "found.json"
            died = int(done.returncode != 0 or not report.exists())
            if died:
                print(done.stderr[-3000:])
        except subprocess.TimeoutExpired:
            died = 1
        found = {"crashed": [], "slowest": -1, "grown_mb": -1, "opened": 0, "refused": {}}
        if not died:
            found = json.loads(report.read_text())
    total = found["opened"] + sum(found["refused"].values()) + len(found["crashed"])
    print(json.dumps(found))
    name = f"{COUNT:,} damaged DICOM and NIfTI files"
    return [
        Number(f"{name}: read", f">= {COUNT}", total, COMMAND),
        Number(f"{name}: errors that are no SampleError", "<= 0", len(found["crashed"]), COMMAND),
        Number(f"{name}: the process died or hung", "<= 0", died, COMMAND),
        Number(f"{name}: slowest, seconds", f"<= {SECONDS}", round(found["slowest"], 2), COMMAND),
        Number(f"{name}: memory grown, MB", f"<= {MEGABYTES}", round(found["grown_mb"]), COMMAND),
        Number(f"{name}: opened all the same", "", found["opened"], COMMAND),
    ]


def sources(out: Path, folder: Path | None) -> list[Path]:
    """Small files of every kind that is written here, and the real ones; large ones once, small ones four times."""
    import numpy as np
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    plain = new_dataset(out / "a.dcm", body((64, 48, 1))[..., 0], WindowCenter=40, WindowWidth=80, RescaleSlope=2)
    deflated = new_dataset(out / "b.dcm", body((64, 48, 1))[..., 0])
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    four = np.stack([body(seed=i) for i in range(4)], -1)
    written = [
        save(plain, out / "a.dcm"),
        save(deflated, out / "b.dcm"),
        write_enhanced(out / "c.dcm", body((16, 16, 5))),
    ]
    nifti = [
        write_nifti(out / "d.nii", body(), slope=(2, -1)),
        write_nifti(out / "e.nii.gz", body((20, 20, 20))),
        write_nifti(out / "f.nii.gz", four),
    ]
    real = sorted(folder.glob("*.dcm")) if folder else []
    small = [path for path in real if path.stat().st_size <= LARGE]
    return [*written, *nifti * 3, *small] * 4 + [path for path in real if path not in small]


def run_mutations(out: Path, folder: Path | None) -> None:
    """In the other process: every damaged file through every reader; the report goes to found.json."""
    import signal

    def late(*_):
        raise TimeoutError(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    files = out / "files"
    files.mkdir()
    contents = {path: path.read_bytes() for path in sources(out, folder)}
    order = list(sources(out, folder))

    def cases():
        for seed in range(COUNT):
            path = order[seed % len(order)]
            signal.alarm(SECONDS)
            yield f"{seed:04d}_{path.name}", mutate(contents[path], seed * 7919 + seed // len(order))[1]
        signal.alarm(0)

    for path in order[:6]:
        read_medical(path)  # libraries load before memory is measured
    found = survive(cases(), read_medical, files)
    (out / "found.json").write_text(json.dumps(vars(found)))


if __name__ == "__main__":
    if "--mutations" in sys.argv:
        given = sys.argv[sys.argv.index("--mutations") + 1 :]
        run_mutations(Path(given[0]), Path(given[1]) if len(given) > 1 else None)
    else:
        where = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared"))
        rows = medical_image_numbers(where)
        print(table(rows))
        sys.exit(any(row.ok is False for row in rows))
