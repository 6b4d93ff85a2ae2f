"""The four tokens that carry pictures: added to a tokenizer by string, given rows that start at the mean, and checked.

Ids differ between tokenizers and even between releases of one; strings do not. So strings are looked up once when a
model is built, the ids are stored in its config, and `check_special_tokens` compares both when a checkpoint is opened.
"""

import torch
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.errors import RadioVLMError

ROW_MULTIPLE = 128


def add_special_tokens(
    tokenizer: PreTrainedTokenizerBase, strings: dict[str, str], turns: tuple[str, ...] = ()
) -> dict[str, int]:
    """Add the strings the tokenizer lacks (as special tokens) and return the id of each role.

    Args:
        strings: the string of each role. turns: turn markers that the chat template will write.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [text for text in dict.fromkeys((*strings.values(), *turns)) if text not in vocabulary]
    if missing:
        added = [AddedToken(text, special=True, normalized=False) for text in missing]
        tokenizer.add_tokens(added, special_tokens=True)
    ids = {role: tokenizer.convert_tokens_to_ids(text) for role, text in strings.items()}
    for role, text in strings.items():
        if tokenizer.encode(text, add_special_tokens=False) != [ids[role]]:
            raise RadioVLMError(
                f"the tokenizer does not read {text!r} (special_tokens[{role!r}]) as one token; choose another string"
            )
    return ids


def check_special_tokens(config: RadioVLMConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise RadioVLMError when a token's string does not have the id that the model was trained with."""
    vocabulary = tokenizer.get_vocab()
    for role, text in config.special_tokens.items():
        expected = getattr(config, f"{role}_token_id")
        found = vocabulary.get(text)
        if role == "video" and found is None:
            found = vocabulary.get(config.special_tokens["image"])  # without a token of its own it shares the image's
        if expected is not None and found != expected:
            raise RadioVLMError(
                f"the tokenizer reads {text!r} as id {found}, the model was built with {role}_token_id = {expected}: "
                "load both from the same checkpoint folder"
            )
    rows = config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise RadioVLMError(f"the tokenizer has {len(tokenizer)} tokens, the model only {rows} rows")


def fit_embeddings(language_model: PreTrainedModel, old_size: int, new_size: int, new_ids: list[int]) -> None:
    """Make room for `new_size` tokens and start the rows of new tokens at the mean of the old ones.

    Vocabularies padded beyond the tokenizer are never shrunk; growth goes to the next multiple of 128. The output head
    is treated alike, tied or not.

    Args:
        old_size: tokens of the tokenizer before any was added. new_ids: ids that were added.
    """
    rows = language_model.get_input_embeddings().weight.shape[0]
    fresh = list(new_ids)
    if new_size > rows:
        grown = -(-new_size // ROW_MULTIPLE) * ROW_MULTIPLE
        language_model.resize_token_embeddings(grown, mean_resizing=False)
        fresh = sorted({*fresh, *range(rows, grown)})
    if not fresh:
        return
    trained = min(old_size, rows)
    tables, seen = [language_model.get_input_embeddings(), language_model.get_output_embeddings()], set()
    for table in tables:
        for name in ("weight", "bias"):
            parameter = getattr(table, name, None)
            if parameter is None or id(parameter) in seen or parameter.is_meta:
                continue
            seen.add(id(parameter))
            with torch.no_grad():
                parameter[fresh] = parameter[:trained].float().mean(dim=0).to(parameter.dtype)
