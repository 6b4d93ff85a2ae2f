"""What a kill or a power loss in the middle of writing leaves: never a folder that looks whole and is not."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.checkpoints import COMPLETE, Checkpoints
from training.ema import EmaCallback
from training.saving import save_stage


class Model:
    """Writes two shards and a config of one version; `stops` after the first shard."""

    adapter_record = None

    def __init__(self):
        self.config = SimpleNamespace(get_text_config=lambda: self.config)
        self.version, self.stops = "old", False

    def save_pretrained(self, folder: Path, **options) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model-1-of-2.safetensors").write_text(self.version)
        if self.stops:
            raise KeyboardInterrupt
        (folder / "model-2-of-2.safetensors").write_text(self.version)
        (folder / "config.json").write_text(self.version)


@pytest.fixture
def trainer(tmp_path):
    model = Model()
    return SimpleNamespace(
        model=model, accelerator=SimpleNamespace(unwrap_model=lambda model: model), save_state=lambda: None,
        args=SimpleNamespace(deepspeed=None, bf16=False, output_dir=str(tmp_path)),
        is_world_process_zero=lambda: True, processing_class=SimpleNamespace(save_pretrained=lambda folder: None),
        ema=SimpleNamespace(in_place=nullcontext),
    )  # fmt: skip


@pytest.mark.parametrize("folder", [".", "ema"])
def test_a_kill_while_a_result_is_written_again_leaves_the_old_one(trainer, tmp_path, folder):
    def save() -> None:
        if folder == "ema":
            EmaCallback(trainer, 0.9).on_train_end(trainer.args, None, None)
        else:
            save_stage(trainer, tmp_path)

    def written() -> dict[str, str]:
        return {path.name: path.read_text() for path in (tmp_path / folder).iterdir() if path.is_file()}

    save()
    first = written()
    assert set(first.values()) == {"old"} and len(first) == 3
    trainer.model.version, trainer.model.stops = "new", True
    with pytest.raises(KeyboardInterrupt):
        save()
    assert written() == first
    trainer.model.stops = False
    save()
    assert written() == dict.fromkeys(first, "new") and not (tmp_path / folder / "model.partial").exists()


def test_a_checkpoint_is_on_the_disk_before_its_mark(trainer, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint-3"
    (folder / "global_step3").mkdir(parents=True)
    (folder / "global_step3/states").write_text("large")
    synced = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, (folder / COMPLETE).exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    trainer.loader = SimpleNamespace(state_dict=lambda: {"place": 3})
    layout = {"processes": 1, "zero": 0, "muon": False, "global_batch_size": 1}
    state = SimpleNamespace(global_step=3, is_world_process_zero=True)
    Checkpoints(trainer, layout, keep=2, rank=0).on_save(trainer.args, state, None)
    before = {name for name, marked in synced if not marked}
    assert before == {"states", "global_step3", "data_state_rank0.json", "checkpoint-3", f"{COMPLETE}.partial"}
    assert synced[-1] == ("checkpoint-3", True), "the folder, which holds the mark's name"
