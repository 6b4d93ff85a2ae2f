"""The place of padded batches: what may differ when it is taken up again, and what may not."""

import numpy as np
import pytest

from training.data.collation import GroupedBatchSampler
from training.data.plan import GroupedPlan
from training.data.sources import DataError


def plan(grouped: bool) -> GroupedPlan:
    lengths = np.arange(12) if grouped else None
    return GroupedPlan(GroupedBatchSampler(lambda epoch: np.arange(12), 2, lengths))


@pytest.mark.parametrize("grouped", [True, False])
def test_batches_that_are_made_otherwise_have_no_common_place(grouped):
    state = plan(grouped).state(plan(grouped).mark())
    plan(grouped).load_state_dict(state)
    with pytest.raises(DataError, match=f"group_by_length = {grouped}, this run has {not grouped}"):
        plan(not grouped).load_state_dict(state)
    del state["group_by_length"]  # saved before this was noted
    plan(grouped).load_state_dict(state)
