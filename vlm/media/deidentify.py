"""What may leave a medical file: an allow-list of fields whose values come from fixed lists, and errors without values.

Headers carry names, numbers, dates and free text about patients, in places nobody expects (descriptions, comments,
private tags, UIDs). So nothing is removed here: the few fields that may leave are named, and each is checked against
the words the standard allows for it. Free text (SeriesDescription, StudyDescription) never leaves. Messages of the
reading libraries quote header values, so their errors, warnings and log lines are replaced by our own words.

File names: the path that a user gives stands in `SampleError.path`, as everywhere in this package, since nobody could
find the file without it; it is in no message. Files found inside a folder are called by number, series by number.
"""

import contextlib
import logging
import warnings

from vlm.errors import SampleError
from vlm.media.modality import normal_body_part, normal_modality

PHOTOMETRIC = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
    "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT",
)  # fmt: skip
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "CC", "MLO", "ML", "LM")
# field -> how its value is brought to a fixed vocabulary
ALLOWED = {
    "Modality": normal_modality,
    "BodyPartExamined": normal_body_part,
    "PhotometricInterpretation": lambda word: word if word in PHOTOMETRIC else "",
    "ViewPosition": lambda word: word if word in VIEWS else "",
    "Laterality": lambda word: word if word in ("L", "R", "B", "U") else "",
    "BurnedInAnnotation": lambda word: word if word in ("YES", "NO") else "",
}
LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "nibabel", "highdicom")


def value(data, key: str):
    """One header value; None where it is absent, empty or damaged."""
    try:
        found = data.get(key)
        return None if found is None or (isinstance(found, str) and not found.strip()) else found
    except Exception:  # noqa: BLE001 - values are parsed when they are asked for, and raise many kinds
        return None


def text(data, key: str) -> str:
    """One header value as text, "" where there is none. Not checked: for decisions here, never to be shown."""
    found = value(data, key)
    return "" if found is None else str(found).strip()


def numbers(data, key: str, count: int | None = None) -> tuple[float, ...] | None:
    """A header value as finite numbers; None where there are none, or not `count` of them."""
    found = value(data, key)
    try:
        parts = [found] if isinstance(found, (str, int, float)) or not hasattr(found, "__iter__") else list(found)
        result = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        return None
    is_whole = result and all(abs(number) < 1e12 for number in result) and count in (None, len(result))
    return result if is_whole else None  # NaN fails the comparison, too


def number(data, key: str) -> float | None:
    """The first number of a header value, or None."""
    found = numbers(data, key)
    return found[0] if found else None


def safe_header(data) -> dict[str, str]:
    """The fields of `ALLOWED` that the header states in words of the standard's lists."""
    found = {key: check(text(data, key).upper()) for key, check in ALLOWED.items()}
    return {key: word for key, word in found.items() if word}


@contextlib.contextmanager
def quiet():
    """Keeps the reading libraries' warnings and log lines, which quote header values, from going anywhere."""
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in LIBRARIES]
    loggers = [logging.getLogger(name) for name in {*known, *LIBRARIES}]
    for logger in loggers:
        logger.addFilter(_drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_drop)


def _drop(record) -> bool:
    return False


@contextlib.contextmanager
def guarded(message: str, path, reason: str):
    """Any error of a reading library -> SampleError with our message and the kind of error, not its words."""
    with quiet():
        try:
            yield
        except (SampleError, ImportError):
            raise
        except MemoryError:
            raise SampleError(f"{message}: it needs more memory than there is", path=path, reason="too_large") from None
        except Exception as error:  # noqa: BLE001 - damaged files raise every kind
            raise SampleError(f"{message} ({type(error).__name__})", path=path, reason=reason) from None
