"""What a stage reads: the sources of its mixture, and how samples become batches."""

from dataclasses import dataclass, field

from training.recipe.checks import RecipeError, check_ranges, choice, require


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


@dataclass
class Data:
    """What is read, and what happens to samples that cannot be used."""

    root: str | None = None
    """Folder that relative paths of sources start from; default: the current folder."""
    sources: list[Source] = field(default_factory=list)
    """The training mixture: a list of {path, weight, limit, ...}."""
    eval_sources: list[Source] = field(default_factory=list)
    """Held-out sources; their loss is measured before and after the stage and written to heldout.json."""
    eval_limit: int = 64
    """At most this many held-out samples of a source that sets no limit itself."""
    max_length: int = 2048
    """Longest sample in tokens, image tokens included; a longer one counts as bad (it is never cut)."""
    bad_share_limit: float = 0.02
    """Training stops when more than this share of the samples read so far is bad."""
    packing: bool = False
    """Lay whole samples end to end in rows of `pack_length` tokens instead of padding them. A batch of
    train.per_device_batch_size then counts rows."""
    pack_length: int | None = None
    """Tokens of a packed row; default: max_length."""
    packing_buffer: int = 1024
    """Samples the packer chooses from; more fill rows better and mix lengths more."""
    group_by_length: bool = True
    """Put samples of similar length into a batch, which saves padding; the order stays deterministic."""
    cache: bool = False
    """Keep encoded samples in memory after their first use; only for small corpora."""
    video_pruning: list[float] | None = None
    """[lowest, highest] share of video tokens left out (EVS), drawn anew for every video sample and epoch; default: the
    model's own video.pruning_rate. max_length counts the whole video."""
    num_workers: int = 0
    """Processes that prepare batches beside each training process; 0 prepares them in the process itself."""
    prefetch: int = 2
    """Batches each worker prepares ahead."""
    stream_block: int = 1024
    """Records of a streamed source that are read at a time and shuffled among themselves."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            "data.{}",
            {
                "(0, inf)": ("eval_limit", "max_length", "packing_buffer", "prefetch", "stream_block"),
                "[0, inf)": ("num_workers",),
                "[0, 1]": ("bad_share_limit",),
            },
        )
        if self.cache and self.num_workers:
            raise RecipeError(
                "data.cache = true and data.num_workers > 0 do not go together (each worker would fill its own cache): "
                "set data.num_workers=0 or data.cache=false"
            )
        rates = self.video_pruning
        require(
            rates is None or (len(rates) == 2 and 0 <= rates[0] <= rates[1] < 1),
            f"data.video_pruning = {rates} is not [lowest, highest] with 0 <= lowest <= highest < 1",
        )
        require(
            self.pack_length is None or self.pack_length >= self.max_length,
            f"data.pack_length = {self.pack_length} is shorter than data.max_length = {self.max_length}: a sample of "
            "that length would fit no row; raise pack_length or lower max_length",
        )
        require(
            self.packing or self.pack_length is None,
            "data.pack_length is set but data.packing is false: set data.packing=true or leave pack_length out",
        )
