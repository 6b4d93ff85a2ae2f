"""Results with experts, written by hand: CT slices of people who do not exist, every fate that a call can have."""

import random
from pathlib import Path

from tests.helpers.odd_experts import PATIENT
from tests.helpers.small_results import results, row

QUESTION = {"side": "Side?", "number": "Number?", "cardiomegaly": "Cardiomegaly?", "sequence": "Sequence?"}
CARD = "Experts:\n<LESIONS()> CT: lesions\n"
BINS = [
    {"low": at / 10, "high": (at + 1) / 10, "count": count, "mean_p": at / 10 + 0.05, "share_yes": share}
    for at, (count, share) in enumerate(
        [(310, 0.02), (84, 0.1), (40, 0.2), (22, 0.3), (11, 0.4), (0, 0.0), (17, 0.5), (29, 0.6), (66, 0.8), (90, 1.0)]
    )
]  # fmt: skip


def write_slice(path: Path, lesions: int = 2, seed: int = 1, **header) -> Path:
    """A CT slice in which LESIONS finds `lesions` lesions; `header` replaces fields."""
    import pydicom

    from training.data.synthetic.slices import random_slice, render, write_dicom

    path.parent.mkdir(parents=True, exist_ok=True)
    item = random_slice(random.Random(seed), 96, lesions)
    write_dicom(path, render(item, 0, noise=0), item, seed, "s")
    if header:
        data = pydicom.dcmread(path)
        for keyword, value in header.items():
            setattr(data, keyword, value)
        data.save_as(path)
    return path


def call(file: Path | str, text: str, trigger: str = "<LESIONS()>", ok: bool = True, seconds: float = 0.012) -> dict:
    name, _, arguments = trigger.strip("<>)").partition("(")
    return {
        "trigger": trigger, "name": name, "arguments": [a for a in arguments.split(", ") if a], "file": str(file),
        "ok": ok, "text": text, "seconds": seconds, "expert_seconds": seconds,
    }  # fmt: skip


def talk(name, kind, answer, output, wanted, file, calls=(), control=None, offer=None, task="ct", **changes) -> dict:
    """The row of one conversation; `offer` marks a card that does not fit the image."""
    question = QUESTION.get(kind, f"{kind}?")
    turns = [{"role": "user", "text": ("" if control == "expert_withheld" else CARD) + question}]
    for one in calls:
        words = one["text"] if one["ok"] else f"error: {one['text']}"
        turns += [{"role": "assistant", "text": one["trigger"]}, {"role": "user", "text": f"{words}\n{question}"}]
    turns.append({"role": "assistant", "text": output})
    score = float(answer == output)
    fields = {
        "kind": kind, "question": question, "answers": [answer], "output": output, "media": [str(file)],
        "scores": {"accuracy": score}, "control": control, "group": name, "wanted_expert": wanted, "calls": list(calls),
        "turns": turns, "called_expert": calls[0]["name"] if calls else None,
    }  # fmt: skip
    return row(name, score, task, **fields, **({"offer": offer} if offer else {}), **changes)


def expert_rows(folder: Path) -> list[dict]:
    """Twelve questions on four slices, with controls."""
    files = [write_slice(folder / f"{i}.dcm", lesions=i, seed=i + 1) for i in (1, 2, 3)]
    other = files[2]
    rows = []
    for i, (side, output) in enumerate([("left", "left"), ("right", "right"), ("right", "left"), ("left", "left")]):
        file = files[i % 2]
        said = f"{i % 2 + 1} lesions; largest: {side}, 20 mm"
        rows.append(talk(f"s{i}", "side", side, output, "LESIONS", file, [call(file, said)]))
        rows.append(talk(f"s{i}", "side", side, "left", "LESIONS", file, control="expert_withheld"))
        wrong = call(other, "3 lesions; largest: left, 11 mm")
        about = {"donor": "n0", "expert_file": str(other)}
        rows.append(talk(f"s{i}", "side", side, "left", "LESIONS", file, [wrong], "expert_wrong", **about))
    slow = call(files[0], "LESIONS did not answer within 120 s", ok=False, seconds=120.0)
    rows.append(talk("s4", "side", "left", "right", "LESIONS", files[0], [slow]))
    rows += [talk(f"s{i}", "side", "right", "right", "LESIONS", files[1]) for i in (5, 6)]
    odd = call(files[1], "not a valid trigger; names are written in capitals", "<lesions()>", ok=False) | {"name": ""}
    rows.append(talk("s7", "side", "right", "the right side", "LESIONS", files[1], [odd]))
    for i, (gold, said) in enumerate([("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"), ("no", "maybe")]):
        rows.append(talk(f"c{i}", "cardiomegaly", gold, said, None, files[0]))
    wrong_card = [call(files[2], "LESIONS is not available: it reads CT, the image is MR", ok=False)]
    rows.append(talk("m0", "sequence", "T1", "T2", None, files[2], wrong_card, offer=["LESIONS"]))
    rows.append(talk("m1", "sequence", "T2", "T2", None, files[2], offer=["LESIONS"]))
    return rows


def expert_results(folder: Path) -> dict:
    """The contents of a results file about them, with a calibration."""
    data = results(expert_rows(folder))
    data["tasks"]["ct"] |= {"calibration": {"bins": BINS}, "ece": 0.031, "brier": 0.064, "auroc": 0.972}
    data["tasks"]["ct"]["disagreement_said"] = 0.25
    return data


__all__ = ["BINS", "PATIENT", "call", "expert_results", "expert_rows", "talk", "write_slice"]
