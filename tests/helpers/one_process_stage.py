"""A stage in one process that is fed, in turns, exactly the batches that N ranks would read.

STAGE_RANKS: N. With gradient_accumulation_steps=N a step then sees what a step of N ranks sees, packed rows included:
the reference that several processes are compared with.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

import training.data_loading as data_loading  # noqa: E402
from training.run import run_stage  # noqa: E402

build_loader = data_loading.build_loader


class Turns:
    """Batches of the loaders of all ranks, rank 0 first; stands where the first loader stands."""

    def __init__(self, loaders: list):
        self.loaders, self.collate_fn = loaders, loaders[0].collate_fn
        self.report, self.state_dict = loaders[0].report, loaders[0].state_dict

    def __iter__(self):
        for batches in zip(*self.loaders):
            yield from batches


def loaders_in_turns(recipe, dataset, machine):
    ranks = int(os.environ["STAGE_RANKS"])
    recipe = replace(recipe, train=replace(recipe.train, gradient_accumulation_steps=1))  # as each rank has it
    machines = [replace(machine, rank=rank, world_size=ranks) for rank in range(ranks)]
    return Turns([build_loader(recipe, dataset, one) for one in machines])


if __name__ == "__main__":
    data_loading.build_loader = loaders_in_turns
    sys.exit(run_stage(sys.argv[1:]))
