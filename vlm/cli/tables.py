"""Plain text tables for the terminal, shared by the commands."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns padded to their widest cell, two spaces apart, a rule under the head. `right`: columns of numbers."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        line = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(line).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def count(number: int) -> str:
    """Parameters as people write them: 950, 12.3K, 1.45M, 8.10B."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= limit:
            return f"{number / limit:.2f}{unit}" if number < 10 * limit else f"{number / limit:.1f}{unit}"
    return str(number)


def parameter_rows(model, depth: int = 1) -> list[tuple[str, int]]:
    """(module, parameters) for every module `depth` names down, in order; shared tensors are counted once."""
    totals: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        key = ".".join(name.split(".")[:-1][:depth])
        totals[key] = totals.get(key, 0) + parameter.numel()
    return list(totals.items())
