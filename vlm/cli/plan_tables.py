"""The page of `radio-vlm plan`: one block a stage, within 100 columns. Not a command."""

from textwrap import wrap

from vlm.cli.tables import count

GIB = 2**30
COLUMNS = {"zero2_offload": "2+offload", "zero3_offload": "3+offload"}
ROWS = (("weights", "weights"), ("gradients", "gradients"), ("optimizer", "optimizer"), ("buffers", "buffers"))
WIDTH = 96


def stage_page(plan) -> str:
    """Text of a `training.plan.estimate.StagePlan`."""
    lines = [f"── {plan.name} " + "─" * max(3, WIDTH - len(plan.name) - 4)]
    facts = [("model", _model(plan)), ("trains", _groups(plan)), ("batch", _batch(plan)), ("step", _step(plan)),
             ("stage", _whole(plan))]  # fmt: skip
    for head, text in facts:
        for part in [part for line in text.split("\n") for part in wrap(line, WIDTH - 8)]:
            lines.append(f"{head:8}{part}")
            head = ""
    if plan.refused:
        return "\n".join([*lines, "", *wrap(f"REFUSED  {plan.refused}", WIDTH, subsequent_indent=" " * 9)])
    barred = ", ".join(COLUMNS.get(zero, zero) for zero in plan.barred)
    note = [f"{barred}: training refuses this with the rest of the recipe"] if barred else []
    return "\n".join([*lines, "", memory_table(plan), *note, "", *_verdict(plan)])


def memory_table(plan) -> str:
    """GiB of a GPU, one column a ZeRO stage; dashes alone where training refuses it."""
    from training.plan.states import ZEROS

    held = {zero for zero, _ in plan.memory}
    zeros = list(dict.fromkeys((*ZEROS, plan.zero)))
    limit = plan.machines.memory
    names = [COLUMNS.get(zero, "yours" if zero.endswith(".json") else zero) for zero in zeros]
    head = [f"GiB a GPU, {_gpus(plan)}", *names]

    def cells_of(key: str, checkpointing: bool = False) -> list[str]:
        return [_gib(getattr(plan.memory[zero, checkpointing], key)) if zero in held else "–  " for zero in zeros]

    rows = [[name, *cells_of(key)] for name, key in ROWS]
    rows.append(["activations", *cells_of("activations")])
    rows.append(["  with checkpointing", *cells_of("activations", True)])
    for checkpointing, name in ((False, "needed"), (True, "  with checkpointing")):
        cells = []
        for zero in zeros:
            if zero not in held:
                cells.append("–  ")
                continue
            needs = plan.needs(zero, checkpointing)
            own = (zero, checkpointing) == (plan.zero, plan.checkpointing)
            mark = "✓" if needs <= limit else "✗"
            cells.append(f"{'▸' if own else ''}{needs:,.1f} {mark}")
        rows.append([name, *cells])
    if any(memory.host for memory in plan.memory.values()):
        rows.append(["main memory a GPU", *cells_of("host", True)])
    width = max(len(row[0]) for row in [head, *rows]) + 2
    least = min(12, (WIDTH - width) // len(zeros))
    widths = [max(least, *(len(row[i]) + 1 for row in [head, *rows])) for i in range(1, len(head))]
    lines = [row[0].ljust(width) + "".join(cell.rjust(w) for cell, w in zip(row[1:], widths)) for row in [head, *rows]]
    lines.insert(1, "─" * len(lines[0]))
    lines.insert(8, "─" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def folder_table(plans: list) -> str:
    """One line a stage."""
    head = ("stage", "zero", "needs GiB", "tokens a step", "steps", "tokens", "time")
    rows = []
    for plan in plans:
        needs = "refused" if plan.refused else f"{plan.needs():.1f} {'✓' if plan.fits else '✗'}"
        rows.append((plan.name, _zero(plan), needs, count(round(plan.tokens_per_step)), f"{plan.steps:,}",
                     count(round(plan.tokens_per_step * plan.steps)), _duration(plan.seconds)))  # fmt: skip
    from vlm.cli.tables import text_table

    return text_table(head, rows, right=range(2, len(head)))


def assumptions(plan) -> str:
    """What no recipe says, in words."""
    from training.plan.estimate import CONTEXT, FRAGMENTS

    words = (
        f"Assumed: {plan.machines.image_share:.0%} of the tokens are pictures (--image-share), packed samples of "
        f"{plan.machines.sample_tokens:,} tokens (--sample-tokens), {plan.machines.mfu:.0%} of "
        f"{plan.machines.device}'s dense bf16 peak (--mfu; checkpointing's recomputation lowers what is reached). "
        f"“needed” adds {CONTEXT / GIB:.1f} GiB for CUDA and NCCL and {FRAGMENTS:.0%} for fragments of memory to "
        "the rows above it; both are allowances, not measurements. Every row of a batch is as long as the recipe "
        "allows. ▸ is what the recipe says."
    )
    return "\n".join(wrap(words, WIDTH))


def _zero(plan) -> str:
    """The recipe's choice; of a file its name."""
    return plan.zero.rsplit("/", 1)[-1]


def _model(plan) -> str:
    total = sum(total for total, _ in plan.parameters.values())
    parts = []
    for name, (size, trained) in plan.parameters.items():
        if 0 < trained < size:
            parts.append(f"{name} {count(trained)} of {count(size)} train")
        else:
            parts.append(f"{name} {count(size)} {'trains' if trained else 'frozen'}")
    return f"{total:,} parameters\n" + " · ".join(parts)


def _groups(plan) -> str:
    shown = plan.groups if len(plan.groups) <= 8 else plan.groups[:7]
    lines = [
        f"{group['group']:22} {count(group['parameters']):>8}   lr {group['lr']:.1e}   decay {group['weight_decay']:g}"
        f"   {group['optimizer']}"
        for group in shown
    ]
    rest = len(plan.groups) - len(shown)
    return "\n".join(lines + ([f"and {rest} groups more"] if rest else []))


def _batch(plan) -> str:
    batch = plan.batch
    kind = "packed" if batch.packed else "padded, at its longest"
    rows = f"{_many(batch.rows, 'row')} of {batch.length:,} tokens ({kind})"
    if not batch.patches:
        return f"{rows}; no pictures"
    return f"{rows}; {batch.image_tokens:,} of them pictures, from {_many(batch.patches, 'patch', 'patches')}"


def _step(plan) -> str:
    most = "" if plan.batch.packed else "at most "
    passes = "" if plan.refused else f" × {_many(plan.accumulation, 'pass', 'passes')}"
    return f"{_gpus(plan)}{passes}: {most}{count(round(plan.tokens_per_step))} tokens, {_flop(plan.flops)}"


def _whole(plan) -> str:
    hours = plan.seconds / 3600 * plan.machines.gpus
    spent = f"{hours:,.0f}" if hours >= 9.95 else f"{hours:.1f}" if hours >= 0.05 else "under 0.1"
    return (
        f"{_many(plan.steps, 'step')}, {count(round(plan.tokens_per_step * plan.steps))} tokens: "
        f"{_duration(plan.seconds)} on {plan.machines.gpus} × {plan.machines.device} at {plan.machines.mfu:.0%} MFU, "
        f"{spent} GPU hours"
    )


def _verdict(plan) -> list[str]:
    how = f"train.zero={_zero(plan)}, {'with' if plan.checkpointing else 'without'} checkpointing"
    limit = plan.machines.memory
    if plan.fits:
        return [f"FITS     {how}: {plan.needs():.1f} of {limit:g} GiB"]
    lines = [f"DOES NOT FIT   {how}: {plan.needs():.1f} GiB, a GPU has {limit:g}. What helps:"]
    for advice in plan.advice:
        lines += wrap(advice, WIDTH - 4, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _gpus(plan) -> str:
    return _many(plan.machines.gpus, "GPU")


def _many(number: int, one: str, more: str | None = None) -> str:
    """1 row, 2 rows, 1,000 patches."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _flop(operations: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if operations >= size:
            return f"{operations / size:,.1f} {unit}"
    return f"{operations / 1e9:,.1f} GFLOP"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}  " if size >= 0.05 * GIB else f"{size / GIB:,.3f}  " if size else "–  "


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return _many(round(seconds), "second") if seconds >= 0.5 else "under a second"
