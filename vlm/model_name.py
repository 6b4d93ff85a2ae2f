"""What `--model`, `--device` and `--dtype` say, looked at before anything is loaded: one plain line for what cannot be.

transformers finds out too, but late: after a minute of retries for a misspelt folder, or in the words of its insides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = ("config.json", "adapter_config.json")
HUB_TIMEOUT = 10.0  # seconds
DTYPES = ("float32", "bfloat16", "float16", "float64")
SHOWN = 10  # folders named in a message


def check_model(name: str) -> None:
    """Raises ValueError for a folder without a checkpoint, and for a name that is no folder and not to be had from the
    hub. A hub id passes that is in the cache, or that the hub knows; what the hub refuses otherwise, it says itself.
    """
    folder = Path(name)
    if folder.is_dir():
        if not _is_checkpoint(folder):
            raise ValueError(f"--model: {name} holds no checkpoint (no config.json){_checkpoints_below(folder)}")
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"--model: no folder {name}")  # the hub would complain about the form of an id
    elif not _is_cached(name) and (problem := _missing_at_the_hub(name)):
        raise ValueError(f"--model: no folder {name}, and {problem}{_checkpoints_below(folder.parent)}")


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / config).is_file() for config in CONFIGS)


def _checkpoints_below(folder: Path) -> str:
    """ "; folders that do: …", or nothing where there are none."""
    if not folder.is_dir():
        return ""
    found = sorted(str(one) for one in folder.iterdir() if one.is_dir() and _is_checkpoint(one))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"; checkpoints in {folder}: {', '.join(found[:SHOWN])}{more}" if found else ""


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(name, config), str) for config in CONFIGS)
    except HFValidationError as error:
        raise ValueError(f"--model: no folder {name}, and no id of the hub: {error}") from None


def _missing_at_the_hub(name: str) -> str | None:
    """Why the hub does not give this model: it knows none, or is out of reach. Asked once, without retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        return "the hub has no model of this name (or it is private, and you are not logged in)"
    except HfHubHTTPError:
        return None  # it is there, and busy or strict: transformers asks again, and tells
    except OfflineModeIsEnabled:
        return "it is not in the cache, and the hub is not asked (HF_HUB_OFFLINE)"
    except Exception as error:  # the HTTP package's own family, whichever is installed
        return f"the hub cannot be reached ({type(error).__name__}: {error})"
    return None


def check_dtype(dtype: Any) -> None:
    """Raises ValueError for what is neither "auto" nor a floating dtype of torch."""
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"--dtype {dtype}: known are auto, {', '.join(DTYPES)}")


def check_device(device: Any) -> None:
    """Raises ValueError for a device that this machine, or this build of torch, has not."""
    import torch

    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has one for each way of not having it
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"--device {device}: there is {', '.join(devices())} ({reason})") from None


def devices() -> list[str]:
    """Names of the devices that models can be put on here."""
    import torch

    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found
