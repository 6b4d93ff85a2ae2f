"""A stand-in for model and processor whose "pictures" are text files: the fake reads what is written in them.

Evaluation can so be tested for its own logic - which file was shown, in which order, what failed - in milliseconds.
"""

from pathlib import Path

import torch

PAD, END, OPEN, CLOSE, OFFSET = 0, 1, 2, 3, 10


class FakeTokenizer:
    pad_token_id, eos_token_id, chat_template = PAD, END, "fake template"

    def decode(self, ids, skip_special_tokens=False):
        names = {PAD: "", END: "", OPEN: "<image>", CLOSE: ""}
        return "".join(names[i] if i in names else chr(i - OFFSET) for i in ids)


class FakeProcessor:
    """`encode` puts the contents of media files between OPEN and CLOSE, then the text of all turns."""

    chat_template = "fake template"
    video = {"max_frames": 8, "fps": 2.0}

    def __init__(self):
        self.tokenizer = FakeTokenizer()
        self.seen = []

    def encode(self, messages, add_generation_prompt=False, sample_id=None):
        assert add_generation_prompt
        ids = []
        for message in messages:
            for item in message["content"]:
                if item["type"] == "text":
                    ids += [ord(c) + OFFSET for c in item["text"]]
                else:
                    path = item[item["type"]]
                    text = Path(path).read_text() if isinstance(path, str) else "".join(map(str, path))
                    ids += [OPEN, *(ord(c) + OFFSET for c in text), CLOSE]
            ids += [ord("|") + OFFSET]
        self.seen.append(sample_id)
        ids = torch.tensor(ids)
        return {"input_ids": ids, "labels": torch.full_like(ids, -100)}

    def collate(self, rows, padding_side="right"):
        assert padding_side == "left"
        width = max(len(row["input_ids"]) for row in rows)
        pad = [torch.full((width - len(row["input_ids"]),), PAD) for row in rows]
        ids = torch.stack([torch.cat([p, row["input_ids"]]) for p, row in zip(pad, rows)])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


class FakeModel(torch.nn.Module):
    """`read(text in pictures, text of all turns) -> answer` decides; batches with `poison` in a prompt raise."""

    def __init__(self, read=lambda picture, text: picture, poison=None):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.read, self.poison, self.batches = read, poison, []
        self.config = type("Config", (), {})()

    @property
    def device(self):
        return self.layer.weight.device

    def generate(
        self, input_ids, attention_mask, max_new_tokens, do_sample, num_beams, eos_token_id, pad_token_id,
        stopping_criteria,
    ):  # fmt: skip
        assert not do_sample and num_beams == 1 and stopping_criteria
        self.batches.append(attention_mask.sum(-1).tolist())
        answers = []
        for row in input_ids.tolist():
            inside, picture, text = False, "", ""
            for i in (i for i in row if i != PAD):
                if i in (OPEN, CLOSE):
                    inside = i == OPEN
                elif inside:
                    picture += chr(i - OFFSET)
                else:
                    text += chr(i - OFFSET)
            if self.poison and self.poison in picture + text:
                raise RuntimeError("poisoned")
            answers.append([ord(c) + OFFSET for c in self.read(picture, text)][:max_new_tokens] + [END])
        width = max(map(len, answers))
        new = torch.tensor([a + [pad_token_id] * (width - len(a)) for a in answers])
        return torch.cat([input_ids, new], dim=1)[:, : input_ids.shape[1] + max_new_tokens]
