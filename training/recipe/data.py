"""What a stage reads: the sources of its mixture, and how samples become batches."""

from dataclasses import dataclass, field

from training.recipe.checks import RecipeError, check_ranges, require
from training.recipe.replay import Replay
from training.recipe.source import Source


@dataclass
class Data:
    """What is read, and what happens to samples that cannot be used."""

    root: str | None = None
    """Folder that relative paths of sources start from; default: the current folder."""
    sources: list[Source] = field(default_factory=list)
    """The training mixture: a list of {path, weight, limit, ...}, or the path of a YAML file that holds such a list
    (relative to data.root; the paths in it start from its own folder)."""
    replay: Replay = field(default_factory=Replay)
    """Data of earlier stages, read beside the mixture."""
    eval_sources: list[Source] = field(default_factory=list)
    """Held-out sources, a list or a file as for data.sources; their loss is measured before and after the stage and
    written to heldout.json."""
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

    def all_sources(self) -> list[Source]:
        """What training reads: the mixture, and what is replayed."""
        return [*self.sources, *(self.replay.sources if self.replay.part else ())]
