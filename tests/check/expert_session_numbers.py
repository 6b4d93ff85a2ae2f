"""What an expert call costs beside the expert's own run, and that nothing is loaded that is not called.

python tests/check/expert_session_numbers.py
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

COMMAND = "tests/check/expert_session_numbers.py"
CALLS = 40
SIZES = (96, 512)


def expert_session_numbers() -> list[Number]:
    """Medians over 40 conversations with the expert LESIONS, on slices of two sizes, text and overlay fed back.

    The answer time is that of two replies of the tiny test model: any real model is slower, so the share is smaller.
    """
    from tests.helpers.tiny_vlm import build_tiny
    from training.data.synthetic.slices import random_slice, render, write_dicom
    from vlm.experts import ExpertSession

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            files = []
            for index in range(CALLS):
                files.append(Path(folder) / f"{size}-{index}.dcm")
                item = random_slice(random.Random(index), size, 2)
                write_dicom(files[-1], render(item, index), item, index, "check")
            reply = reply_seconds(*build_tiny(), files[0])
            for feedback in ("text", "both"):
                with ExpertSession(["LESIONS"], feedback=feedback, log=Path(folder) / "log.jsonl") as session:
                    converse(session, files[0])  # loads
                    with_expert = [converse(session, file) for file in files]
                    none = [converse(session, file, offer=False)[0] for file in files]
                beyond = [total - own for total, own in with_expert]
                extra = statistics.median(beyond) - statistics.median(none)
                own = statistics.median(own for _, own in with_expert)
                name = f"expert call, {size} px, {feedback}: "
                rows += [
                    Number(f"{name}the expert's own run, ms", "", round(own * 1e3, 2), COMMAND),
                    Number(
                        f"{name}time beyond it, ms",
                        f"<= {5 if feedback == 'text' else 30}",
                        round(extra * 1e3, 2),
                        COMMAND,
                    ),
                    Number(f"{name}share of the answer time", "<= 0.1", round(extra / (own + 2 * reply), 4), COMMAND),
                ]
    return [*rows, *loading_numbers()]


def converse(session, file: Path, offer: bool = True) -> tuple[float, float]:
    """(seconds of a conversation whose replies cost nothing, seconds of the expert's own run in it)."""
    content = [{"type": "image", "image": str(file)}, {"type": "text", "text": "Number?"}]
    replies = iter(["<LESIONS()>", "2"] if offer else ["2"])
    start = time.perf_counter()
    transcript = session.run(lambda batch: [next(replies)], [{"role": "user", "content": content}], offer=offer)
    seconds = time.perf_counter() - start
    if offer and not transcript.calls[0].ok:
        raise RuntimeError(transcript.calls[0].text)
    return seconds, sum(call.expert_seconds for call in transcript.calls)


def reply_seconds(model, processor, file: Path) -> float:
    """Seconds in which the tiny model writes one reply of eight tokens about a file."""
    import torch

    content = [{"type": "image", "image": str(file)}, {"type": "text", "text": "Number?"}]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loading_numbers() -> list[Number]:
    """Constructions of experts in a session in which every registered one may be called and one is, three times."""
    from tests.helpers.odd_experts import Odd, asked, write_image
    from vlm.experts import ExpertSession, protocol

    built: list[str] = []
    originals = {name: cls.__init__ for name, cls in protocol._EXPERTS.items()}

    def counting(name, original):
        def init(self, *args, **kwargs):
            built.append(name)
            original(self, *args, **kwargs)

        return init

    try:
        protocol._EXPERTS["ODD"] = Odd
        before = len(Odd.built)
        for name, original in originals.items():
            protocol._EXPERTS[name].__init__ = counting(name, original)
        with tempfile.TemporaryDirectory() as folder, ExpertSession(max_calls=3) as session:
            image = write_image(Path(folder) / "a.dcm")
            script = iter(["<ODD(fine)>"] * 3 + ["done"])
            session.run(lambda batch: [next(script)], asked(image))
        called = len(Odd.built) - before
    finally:
        protocol._EXPERTS.pop("ODD", None)
        for name, original in originals.items():
            protocol._EXPERTS[name].__init__ = original
    return [
        Number("experts built that were not called", "<= 0", len(built), COMMAND),
        Number("constructions of an expert called three times", "<= 1", called, COMMAND),
    ]


if __name__ == "__main__":
    print(table(expert_session_numbers()))
