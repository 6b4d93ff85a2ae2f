"""The bases: tokenizer, cells and curriculum, and that both commands leave checkpoints that AutoModel opens."""

import random

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from training.bases import cells, language_model, loop, radio
from training.bases.tokenizer import SPECIAL_TOKENS, WORDS, build_tokenizer
from training.data.synthetic.documents import LABELS, VALUES, make_page

LAYOUTS = cells.all_layouts()


def test_tokenizer_words_bytes_and_template():
    tokenizer = build_tokenizer()
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    words = " ".join(word for word in WORDS if " " in word).split()
    assert "disagree" in words and len(words) > 50
    assert all(len(tokenizer(word)["input_ids"]) == 1 for word in (*LABELS, *VALUES, *words))
    for text in ("TAX 42\nLOT 107.5", "größe 東京 \t<b>", "Read.", " a  b "):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    messages = [{"role": "user", "content": "TAX?"}, {"role": "assistant", "content": "42"}]
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids = [i for i, keep in zip(encoded["input_ids"], encoded["assistant_masks"]) if keep]
    assert tokenizer.decode(ids) == "42<|end|>"
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_cells_hold_what_the_page_says():
    for layout in LAYOUTS:
        whole = 0
        for seed in range(30):
            page, fields = make_page(random.Random(seed), layout, "train")
            strings = cells.cell_strings(page)
            assert sorted("".join(strings)) == sorted(char for char, _, _ in page.marks)
            whole += sum(label in string for label, _ in fields for string in strings) / len(fields)
        assert whole / 30 > 0.5, layout.name  # most labels are not cut by a border between cells


def test_cell_vectors_keep_order():
    table = torch.nn.Embedding(50, 128)
    places = cells.place_codes(128, 0.0, 0)
    tokens = torch.full((1, cells.ROWS * cells.COLUMNS, cells.SLOTS), -1)
    tokens[0, 0, :2] = torch.tensor([3, 4])
    tokens[0, 1, :2] = torch.tensor([4, 3])
    vectors = cells.cell_vectors(tokens, table, places)[0]
    assert not torch.allclose(vectors[0], vectors[1])
    assert torch.count_nonzero(vectors[2]) == 0


def test_curriculum_ends_with_every_layout():
    assert [layout.name for layout in language_model.open_layouts(LAYOUTS, 0.0)] == ["amounts_inline"]
    assert set(language_model.open_layouts(LAYOUTS, 0.9)) == set(LAYOUTS)
    named = {name for _, names in language_model.CURRICULUM for name in names}
    assert named <= {layout.name for layout in LAYOUTS}


def test_labels_cover_exactly_the_answers():
    tokenizer = build_tokenizer()
    sequences = language_model.Sequences(tokenizer)
    ids, labels = sequences.dialogue([language_model.CELL] * 12, [("TAX?", "42"), ("LOT?", "17")])
    kept = [label for label in labels if label != language_model.IGNORED]
    assert tokenizer.decode(kept) == "42<|end|>17<|end|>"
    assert all(label in (language_model.IGNORED, token) for token, label in zip(ids, labels))


def test_commands_write_ordinary_checkpoints(tmp_path):
    assert language_model.main(["--out", str(tmp_path / "llm"), "--steps", "6", "--batch-size", "4"]) == 0
    assert radio.main(["--out", str(tmp_path / "radio"), "--steps", "3", "--batch-size", "4"]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    assert model.config.vocab_size == len(tokenizer) and model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template
    features = AutoModel.from_pretrained(tmp_path / "radio")(torch.rand(1, 3, 96, 128)).features
    assert features.shape == (1, 48, 128)


def test_training_lowers_the_loss():
    options = loop.arguments("").parse_args(["--out", "unused", "--steps", "12", "--batch-size", "8"])
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    target = torch.randn(16, 4)

    def compute(done):
        return (model(torch.eye(4).repeat(4, 1)) - target[:4].repeat(4, 1)).square().mean(), ""

    losses = loop.train("test", model, compute, options)
    assert len(losses) == 12 and losses[-1] < losses[0]
