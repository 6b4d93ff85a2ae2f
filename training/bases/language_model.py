"""Makes the small hybrid language model of the demo: NemotronH, trained from nothing on look-ups.

    python training/bases/language_model.py --out runs/demo/bases/llm --seconds 60 --seed 0

It reads pages as a grid of cells (``cells.py``), transcriptions in plain text and an expert's findings, and answers
questions on them; the loss is on the answers only. The curriculum is what makes it work: with all layouts at once it
stays for minutes at "reads the numbers, picks a row at random"; with one layout first it finds the look-up in seconds.
"""

from __future__ import annotations

import random
import string
import sys
from pathlib import Path

# Running a script puts its own folder first on the path; the packages lie two levels up.
ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase  # noqa: E402

from llm.prepare import prepare_language_model  # noqa: E402
from llm.presets import LLM_PRESETS  # noqa: E402
from training.bases import cells, loop  # noqa: E402
from training.bases.tokenizer import build_tokenizer  # noqa: E402
from training.data.synthetic.documents import training_exchanges, transcription  # noqa: E402
from training.data.synthetic.medical_text import random_lookup  # noqa: E402
from training.data.synthetic.pages.registry import Fields, Layout  # noqa: E402

IGNORED = -100
CELL = -1  # stands for a visual cell while a sequence is built
# When each layout joins: value right after its label first; then value above its label, the hardest; then one of rows
# and one of columns, then the rest.
CURRICULUM = (
    (0.00, ("amounts_inline",)),
    (0.18, ("upright",)),
    (0.36, ("rows", "columns")),
    (0.50, ()),  # everything else
)
EXTRA_TURNS = {"upright": 1}  # how many more times a layout is in the draw once all are open
TEXT_SHARE, MEDICAL_SHARE, READ_SHARE = 0.10, 0.10, 0.15


def open_layouts(layouts: list[Layout], done: float) -> list[Layout]:
    """The layouts in use when a share ``done`` of the training has passed."""
    names: set[str] = set()
    for start, joined in CURRICULUM:
        if done >= start:
            names |= set(joined) or {layout.name for layout in layouts}
    opened = [layout for layout in layouts if layout.name in names]
    if len(opened) == len(layouts):
        opened += [layout for layout in layouts for _ in range(EXTRA_TURNS.get(layout.name, 0))]
    return opened


class Sequences:
    """Turns pages and dialogues into token ids and labels, in the shape of the chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.user, self.assistant, self.end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<|end|>"])

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def dialogue(self, first: list[int], exchanges: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
        """Ids and labels; ``first`` stands at the start of the first user turn, labels cover answers and their end."""
        ids: list[int] = []
        labels: list[int] = []
        for index, (asked, answer) in enumerate(exchanges):
            turn = [self.user, *(first if index == 0 else []), *self.encode(asked), self.assistant]
            reply = [*self.encode(answer), self.end]
            ids += turn + reply
            labels += [IGNORED] * len(turn) + reply
        return ids, labels

    def medical(self, rng: random.Random) -> tuple[list[int], list[int]]:
        """A look-up in an expert's findings."""
        texts = [
            "".join(item["text"] for item in m["content"]) if isinstance(m["content"], list) else m["content"]
            for m in random_lookup(rng)
        ]
        return self.dialogue([], list(zip(texts[::2], texts[1::2])))


def random_fields(rng: random.Random, count: int) -> Fields:
    """Fields with any three letters as label, so that looking up is not tied to the words of the pages."""
    return [("".join(rng.sample(string.ascii_uppercase, 3)), str(rng.randint(10, 99))) for _ in range(count)]


def pad(sequences: list[tuple[list[int], list[int]]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels (B, L)."""
    length = max(len(ids) for ids, _ in sequences)
    ids = torch.tensor([a + [pad_id] * (length - len(a)) for a, _ in sequences])
    labels = torch.tensor([b + [IGNORED] * (length - len(b)) for _, b in sequences])
    return ids, labels


class LookUpTask:
    """Batches of the mixture and their loss."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, batch_size: int, seed: int):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.rng = random.Random(f"language model/{seed}")
        self.sequences = Sequences(tokenizer)
        self.layouts = cells.all_layouts()
        self.places = cells.place_codes(model.config.hidden_size, scale=0.04, seed=seed)

    def batch(self, done: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids with CELL where a visual cell stands (B, L), labels (B, L), tokens of the cells (pages, cells, SLOTS)."""
        rng = self.rng
        drawn = cells.draw_pages(rng, open_layouts(self.layouts, done), self.batch_size)
        rows, pages = [], []
        for page, fields in drawn:
            dice = rng.random()
            if dice < MEDICAL_SHARE:
                rows.append(self.sequences.medical(rng))
            elif dice < MEDICAL_SHARE + TEXT_SHARE:
                fields = random_fields(rng, len(fields)) if rng.random() < 0.5 else fields
                first = self.sequences.encode(transcription(fields) + "\n")
                rows.append(self.sequences.dialogue(first, training_exchanges(rng, fields, 0.0)))
            else:
                first = [CELL] * (cells.ROWS * cells.COLUMNS)
                rows.append(self.sequences.dialogue(first, training_exchanges(rng, fields, READ_SHARE)))
                pages.append(page)
        ids, labels = pad(rows, self.tokenizer.pad_token_id)
        return ids, labels, cells.cell_tokens(pages, self.tokenizer)

    def loss(self, done: float) -> tuple[torch.Tensor, str]:
        """Cross entropy on the answers, and the share of right answer tokens as a note."""
        ids, labels, tokens = self.batch(done)
        table = self.model.get_input_embeddings()
        vectors = cells.cell_vectors(tokens, table, self.places)
        embedded = table(ids.clamp(min=0)).masked_scatter((ids == CELL).unsqueeze(-1), vectors)
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits[:, :-1]
        targets = labels[:, 1:]
        asked = targets != IGNORED
        right = (logits.argmax(-1) == targets)[asked].float().mean().item()
        return F.cross_entropy(logits[asked].float(), targets[asked]), f"right {right:.2f}"


def make(options) -> list[float]:
    """Trains and saves model and tokenizer; returns the losses."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer = build_tokenizer()
    config = LLM_PRESETS["tiny"].config()
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.bos_token_id = None
    model = AutoModelForCausalLM.from_config(config).train()
    prepare_language_model(model)
    task = LookUpTask(model, tokenizer, options.batch_size, options.seed)
    losses = loop.train("language model", model, task.loss, options)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    return losses


def main(argv: list[str] | None = None) -> int:
    parser = loop.arguments("Train the small language model of the demo on look-ups in pages and text.")
    parser.set_defaults(batch_size=16)
    make(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
