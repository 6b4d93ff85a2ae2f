"""The numbers every family of language models promises: the same logits however it is run, the same tokens from
embeddings, the loss of transformers without its logits. All of them from tiny models in float32, against transformers.
"""

import logging
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

COMMAND = "tests/check/family_numbers.py"
SIZES = [1, 7, 64, 100]
DECODING = [122] + [1] * 50
CONTROLS = {"chunked prefill": ("bamba", "jamba")}  # where transformers 5.23 is wrong beside padding


def logits_errors(native, model) -> dict[str, float]:
    """Largest differences of logits: to transformers at once, and to the model itself in pieces."""
    from tests.helpers.family_models import chunked_logits, tokens
    from tests.helpers.tiny_llm import difference

    ids = tokens(2, sum(SIZES))
    with torch.no_grad():
        wanted, whole = native(input_ids=ids).logits, model(input_ids=ids).logits
    return {
        "plain batch": difference(whole, wanted),
        "prefill and decoding": difference(chunked_logits(model, ids, DECODING), whole),
        "chunked prefill": difference(chunked_logits(model, ids, SIZES), whole),
    }


def packing_error(native, model) -> float:
    """Packed rows against transformers on one sample at a time."""
    from tests.helpers.tiny_llm import difference, random_ids, random_rows, separate_logits, seq_idx_of

    rows = random_rows(1, seed=3)
    ids = random_ids(rows)
    with torch.no_grad():
        return difference(model(input_ids=ids, seq_idx=seq_idx_of(rows)).logits, separate_logits(native, ids, rows))


def padding_error(models) -> float:
    """Behind 29 masked positions of noise against alone, over all models; infinite where a gradient reaches them."""
    from tests.helpers.family_models import padding_probe, tokens
    from tests.helpers.tiny_llm import difference

    ids, errors = tokens(1, 100), []
    for model in models:
        logits, gradient = padding_probe(model, ids, 29)
        errors.append(difference(logits, padding_probe(model, ids, 0)[0]))
        errors.append(float("inf") if gradient[:, :29].any() else 0.0)
    return max(errors)


def tokens_that_differ(model) -> int:
    """Greedy tokens from embeddings, one by one and left-padded in a batch, against those from ids one by one."""
    from tests.helpers.family_models import left_padded, tokens

    lengths, options = [40, 17, 5, 1], {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None}
    ids, wrong = tokens(4, 40), 0
    embed = model.get_input_embeddings()
    padded, mask = left_padded(ids, lengths)
    together = model.generate(inputs_embeds=embed(padded), attention_mask=mask, pad_token_id=0, **options)
    for row, length in enumerate(lengths):
        single = ids[row : row + 1, :length]
        wanted = model.generate(input_ids=single, pad_token_id=0, **options)[0, length:]
        alone = model.generate(inputs_embeds=embed(single), pad_token_id=0, **options)[0]
        wrong += int((alone != wanted).sum()) + int((together[row] != wanted).sum())
    return wrong


def loss_error(native, model) -> float:
    """Largest relative error of the loss: whole and padded, mean and counted, from ids and from embeddings."""
    from tests.helpers.family_models import tokens

    ids, worst = tokens(3, 70), 0.0
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, :9] = mask[1, 50:] = 0
    labels[:, :20] = labels[2, 40:60] = -100
    embeds = model.get_input_embeddings()(ids)
    for options in ({}, {"attention_mask": mask}, {"num_items_in_batch": 321}):
        with torch.no_grad():
            wanted = native(input_ids=ids, labels=labels, **options).loss
            for source in ({"input_ids": ids}, {"inputs_embeds": embeds}):
                loss = model(**source, labels=labels, skip_logits=True, **options).loss
                worst = max(worst, abs(loss / wanted - 1).item())
    return worst


def controls(name: str, native, biased) -> list[Number]:
    """What transformers itself gets wrong: the tests above can fail."""
    from tests.helpers.family_models import chunked_logits, tokens
    from tests.helpers.tiny_llm import difference

    rows = []
    if name in CONTROLS["chunked prefill"]:
        ids = tokens(2, sum(SIZES))
        with torch.no_grad():
            error = difference(chunked_logits(native, ids, SIZES), native(input_ids=ids).logits)
        rows.append(Number(f"{name}: control, transformers' chunked prefill", ">= 0.01", error, COMMAND))
    if biased:
        error = padding_error(biased)
        rows.append(Number(f"{name}: control, transformers' left padding with biases", ">= 0.01", error, COMMAND))
    return rows


def family_numbers(out: Path) -> list[Number]:
    """The rows of every family of the registry; nothing is written to `out`."""
    from tests.helpers.family_models import BIASES, FAMILIES, native_and_prepared, with_biases

    logging.getLogger("transformers").setLevel(logging.ERROR)  # its fallbacks are what is measured
    numbers = []
    for name in FAMILIES:
        native, model = native_and_prepared(name)
        biased = native_and_prepared(name, with_biases(name)) if name in BIASES else ()
        errors = logits_errors(native, model)
        errors["packed against separate"] = packing_error(native, model)
        errors["left padding, also with biases"] = padding_error([model, *biased[1:]])
        numbers += [Number(f"{name}: {what}", "<= 2e-5", error, COMMAND) for what, error in errors.items()]
        numbers.append(Number(f"{name}: generated tokens that differ", "<= 0", tokens_that_differ(model), COMMAND))
        numbers.append(Number(f"{name}: loss, relative", "<= 1e-5", loss_error(native, model), COMMAND))
        numbers += controls(name, native, biased[:1])
    return numbers


def families_table(numbers: list[Number]) -> str:
    """Markdown, one row a family: packing and cached generation with what was measured."""
    from llm import families

    found: dict[str, dict[str, Number]] = {}
    for number in numbers:
        name, what = number.name.split(": ", 1)
        found.setdefault(name, {})[what] = number
    lines = ["| family | packs | cached generation | left padding | loss |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        cache = max(rows[what].value for what in ("prefill and decoding", "chunked prefill"))
        words = "same tokens" if rows["generated tokens that differ"].ok else "OTHER TOKENS"
        cells = (
            f"{'yes' if families()[name].packs else 'no'}, {rows['packed against separate'].value:.0e}",
            f"yes, {cache:.0e}; {words} from embeddings and in left-padded batches",
            f"{rows['left padding, also with biases'].value:.0e}",
            f"{rows['loss, relative'].value:.0e}",
        )
        lines.append(f"| {families()[name].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = family_numbers(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/check/family"))
    print(table(found))
    print(families_table(found))
    sys.exit(1 if any(number.ok is False for number in found) else 0)
