"""Opening a checkpoint for a command: errors in plain words, device and dtype chosen. Not a command itself."""

from pathlib import Path

from vlm.errors import RadioVLMError

LARGE = 500_000_000  # bytes of weights from which a progress bar helps


def quiet_transformers(weight_bytes: int) -> None:
    """Errors only, and no progress bars for weights that load in a blink: an answer should stand alone on the screen.

    Missing kernels, which it would warn of, are listed by `radio-vlm inspect`.
    """
    import logging as standard

    from transformers.utils import logging

    logging.set_verbosity_error()
    if weight_bytes < LARGE:
        logging.disable_progress_bar()
    # saving imports DeepSpeed where it is installed, which then announces the device it found
    standard.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= standard.ERROR)


def check_checkpoint(name: str) -> None:
    """Refuse, with the reason, what cannot be a RADIO-VLM checkpoint: a folder without one, a name nobody knows."""
    from vlm.model_name import check_model

    try:
        check_model(name)
    except ValueError as error:
        raise RadioVLMError(str(error)) from None


def whole_model(name: str) -> str:
    """The checkpoint itself, or the base of an adapter folder (checked too)."""
    from vlm import adapter_folder

    check_checkpoint(name)
    base = adapter_folder.whole_model(name)
    if base != name:
        check_checkpoint(base)
    return base


def load_config(name: str):
    """RadioVLMConfig of a checkpoint, of an adapter folder that of its base; `RadioVLMError` for anything else."""
    source = whole_model(name)
    from transformers import AutoConfig

    import vlm  # noqa: F401 - registers the classes with transformers' Auto classes
    from vlm.adapter_folder import is_adapter, read_base

    try:
        config = AutoConfig.from_pretrained(source, revision=read_base(name).revision if is_adapter(name) else None)
    except (OSError, ValueError) as error:
        raise RadioVLMError(f"--model: cannot read {name}: {error}") from error
    if config.model_type != "radio_vlm":
        raise RadioVLMError(f"--model: {name} is a `{config.model_type}` model, not a RADIO-VLM checkpoint")
    return config


def load_empty_model(name: str):
    """The model on the meta device: every shape, no weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    config = load_config(name)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def load_processor(name: str):
    """RadioVLMProcessor of a checkpoint or an adapter folder, whose base need not be there."""
    from vlm.adapter_folder import is_adapter

    check_checkpoint(name)
    if not is_adapter(name):
        load_config(name)
    from transformers import AutoProcessor

    import vlm  # noqa: F401 - registers the classes with transformers' Auto classes

    try:
        return AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise RadioVLMError(f"--model: cannot read the processor of {name}: {error}") from error


def load_model(name: str, device: str = "auto", dtype: str = "auto"):
    """The model with its weights, in eval mode; of an adapter folder the base with the adapter on it.

    device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
    """
    import torch
    from transformers import AutoModelForImageTextToText

    load_config(name)
    source = Path(whole_model(name))
    if source.is_dir():
        quiet_transformers(sum(path.stat().st_size for path in source.glob("*.safetensors")))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        raise RadioVLMError(f"--model: cannot load {name}: {error}") from error
    return model.to(device).eval()
