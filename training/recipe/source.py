"""One entry of a data mixture: which file or folder, and how it is read."""

from dataclasses import dataclass

from training.recipe.checks import check_ranges, choice, require


@dataclass
class Source:
    """One entry of a data mixture."""

    path: str = ""
    """Dataset folder (records.jsonl), JSONL or LLaVA JSON file, tar shards, picture folder or HF dataset folder,
    relative to data.root; or `hf://ORG/NAME` on the hub."""
    weight: float | None = None
    """Share of this source in the mixture, relative to the weights of the others; default: by its size."""
    repeats: float | None = None
    """How often this source is read in an epoch (fractions allowed); instead of weight."""
    limit: int | None = None
    """Use only the first N records."""
    cap: int | None = None
    """At most this many samples an epoch; the next epoch goes on with others."""
    media_root: str | None = None
    """Folder the images and videos are relative to; default: the folder of the file."""
    format: str | None = None
    """Name of the file format; default: recognised by its content."""
    split: str | None = None
    """Split of a Hugging Face dataset."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset that has several."""
    columns: dict[str, str] | None = None
    """Our key -> the key of the records, where they are called otherwise: {question: query, answers: label}."""
    streaming: bool = False
    """Read a Hugging Face dataset from front to back as it arrives instead of downloading it first."""
    system: str | None = None
    """System prompt for records that bring none."""
    reasoning: str | None = None
    """`off`: reasoning traces are left out and the template's switch says so; `on`: the switch says on. Default: the
    records are taken as they are."""
    name: str | None = None
    """Name shown in reports; default: the name the records or the folder carry."""

    def __post_init__(self) -> None:
        require(bool(self.path), "a data source needs a path: write `- path: FOLDER`")
        if self.reasoning is not None:
            choice(self.reasoning, ("on", "off"), f"reasoning of {self.path}")
        both = self.weight is not None and self.repeats is not None
        require(not both, f"weight and repeats of {self.path} are both set; keep one of them")
        check_ranges(self, f"{{}} of {self.path}", {"(0, inf)": ("weight", "repeats", "limit", "cap")})

    def as_dict(self) -> dict:
        """The fields that are set, as the mixture takes them."""
        return {key: value for key, value in vars(self).items() if value is not None and value is not False}
