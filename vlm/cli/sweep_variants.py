"""What `radio-vlm sweep` compares and the commands that make each variant. Not a command itself.

Every registered projector takes part: with its defaults, or with the settings of `SETTINGS`. All variants see the same
pixels; where a projector folds more patches than a grid has, it pads.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from vlm.errors import RadioVLMError

# projector type -> {what the variant is called behind it: settings}. The tiny pages have 6 x 8 patches.
SETTINGS: dict[str, dict[str, dict]] = {
    "pixel_shuffle": {
        "2": {"downsample": 2},
        "3": {"downsample": 3, "odd_grids": "pad"},
        "4": {"downsample": 4, "odd_grids": "pad"},
    },
    "spatial_to_channel": {"2": {"downsample": 2}, "3": {"downsample": 3}},
    "average_pool": {"2": {"downsample": 2}},
    "token_merging": {"quarter": {"keep": 0.25}},
    "resampler": {"12": {"num_queries": 12}},
}
TRAIN, HELDOUT, TEST = "documents-train", "documents-val", "documents-test"
STEPS = ("new", "stage1", "stage2", "eval")
PORT = "{port}"  # a free one is put here when the command starts
STAGE1_SHARE = 1 / 6  # of the steps of stage 2, about as in the demo


@dataclass(frozen=True)
class Variant:
    """One projector with its settings; `name` is also its folder."""

    name: str
    type: str
    settings: dict = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name.replace("-", " ")


def all_variants() -> list[Variant]:
    """Every registered projector in every setting of `SETTINGS`, or once as it is."""
    from projectors.components import projector_names

    found = []
    for kind in projector_names():
        settings = SETTINGS.get(kind, {"": {}})
        found += [Variant(f"{kind}-{name}" if name else kind, kind, chosen) for name, chosen in settings.items()]
    return found


def choose(wanted: list[str] | None) -> list[Variant]:
    """The variants named by type ("pixel_shuffle") or in full ("pixel_shuffle-3"); all of them for None."""
    known = all_variants()
    if not wanted:
        return known
    names = {name for variant in known for name in (variant.name, variant.type)}
    if unknown := [name for name in wanted if name not in names]:
        listed = ", ".join(variant.name for variant in known)
        raise RadioVLMError(f"--projectors: unknown {', '.join(unknown)}; known: {listed} (or a type for all of its)")
    return [variant for variant in known if variant.name in wanted or variant.type in wanted]


@dataclass(frozen=True)
class Plan:
    """What is the same for all variants. Folders may be relative to the current one; `root` is the checkout's."""

    root: Path
    out: Path
    bases: Path
    data: Path
    steps: int
    batch_size: int
    seed: int

    @property
    def stage1_steps(self) -> int:
        return max(1, round(self.steps * STAGE1_SHARE))

    def folder(self, variant: Variant) -> Path:
        return self.out / "variants" / variant.name

    def commands(self, variant: Variant) -> dict[str, list[str]]:
        """Step -> command, in order: the doors a person would use."""
        return {
            "new": self._new(variant),
            "stage1": self._stage(variant, 1, self.stage1_steps),
            "stage2": self._stage(variant, 2, self.steps),
            "eval": self._eval(variant),
        }

    def _new(self, variant: Variant) -> list[str]:
        pairs = {"type": variant.type, **variant.settings}
        return [
            *(sys.executable, "-m", "vlm", "new", "--preset", "tiny", "--seed", str(self.seed)),
            *("--vision", str(self.bases / "radio"), "--llm", str(self.bases / "llm")),
            *("--projector", *(f"{key}={value}" for key, value in pairs.items())),
            *("--out", str(self.folder(variant) / "stage0")),
        ]

    def _stage(self, variant: Variant, stage: int, steps: int) -> list[str]:
        """One process, so that two variants train side by side; only pages, so that few steps suffice."""
        folder = self.folder(variant)
        overrides = {
            "model": folder / f"stage{stage - 1}",
            "output_dir": folder / f"stage{stage}",
            "seed": self.seed,
            "data.root": self.data,
            "data.sources": f"[{{path: {TRAIN}}}]",
            "data.eval_sources": f"[{{path: {HELDOUT}}}]",
            "train.max_steps": steps,
            "train.per_device_batch_size": self.batch_size,
        }
        return [
            *(str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "1", "--master_port", PORT),
            *(str(self.root / f"training/stage{stage}.py"), "--config"),
            str(self.root / f"training/recipes/tiny/stage{stage}.yaml"),
            *(f"{key}={value}" for key, value in overrides.items()),
        ]

    def _eval(self, variant: Variant) -> list[str]:
        folder = self.folder(variant)
        return [
            *(sys.executable, str(self.root / "eval/run.py"), "--model", str(folder / "stage2"), "--no-progress"),
            *("--data", str(self.data / TEST), "--seed", str(self.seed), "--out", str(folder / "eval.json")),
        ]


def parts_of(run: Path, names: tuple[str, ...]) -> bool:
    """Whether all of `names`, files of a run folder, exist."""
    return all((run / name).is_file() for name in names)


BASES = ("bases/llm/config.json", "bases/radio/config.json")
DATA = tuple(f"data/{name}/records.jsonl" for name in (TRAIN, HELDOUT, TEST))


def preparation(root: Path, out: Path, seed: int, settings: dict, bases: bool, data: bool) -> dict[str, list[str]]:
    """The demo's own commands for what is missing: pages into out/data, two small bases into out/bases."""
    commands = {}
    if data:
        plan = out / "data.yaml"
        pages = {name: settings["data"][name] for name in (TRAIN, HELDOUT, TEST)}
        plan.write_text(yaml.safe_dump(pages, sort_keys=False))
        make = [sys.executable, "-m", "vlm", "make-data", "--plan", str(plan)]
        commands["data"] = [*make, "--seed", str(seed), "--out", str(out / "data")]
    if bases:
        for name, script in (("llm", "language_model.py"), ("radio", "radio.py")):
            seconds = str(settings["bases"][f"{name}_seconds"])
            make = [sys.executable, str(root / "training/bases" / script), "--out", str(out / "bases" / name)]
            commands[name] = [*make, "--seconds", seconds, "--seed", str(seed)]
    return commands
