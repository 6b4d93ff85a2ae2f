"""The data position of a run, for another number of ranks: no sample is lost and none comes twice.

Padded batches: the epoch goes on with what the old width left of it. Packs: every sample that an old rank had read and
not handed out, or that a slower rank had not reached, is dealt out again; behind the fastest rank all go on together.
"""

from training.data.map_feed import place
from training.data.sources import DataError


def reshard(states: list[dict], world_size: int) -> list[dict]:
    """States of `BatchLoader.state_dict`, one a rank in order -> one for each of `world_size` ranks.

    Raises:
        DataError: the states are not those of all ranks of one run, or of streamed sources, which each rank reads from
            front to back by itself.
    """
    if world_size < 1 or not states or len({state["kind"] for state in states}) > 1:
        raise DataError("the saved data positions are not those of one run: one file for each rank is needed, in order")
    if states[0]["kind"] == "grouped":
        return _grouped(states, world_size)
    feeds = [state["feed"] for state in states]
    if any(feed.get("kind") != "map" for feed in feeds):
        raise DataError(
            f"streamed sources were read by {len(states)} processes and cannot be split anew for {world_size}: resume "
            f"with {len(states)} processes, or download the sources and set streaming: "
            "false"
        )
    if [feed["rank"] for feed in feeds] != list(range(feeds[0]["world_size"])):
        raise DataError(
            f"the run had {feeds[0]['world_size']} ranks, but there are data positions of ranks "
            f"{[feed['rank'] for feed in feeds]}: one file for each rank is needed, in order"
        )
    return _packed(states, feeds, world_size)


def _grouped(states: list[dict], world_size: int) -> list[dict]:
    """All ranks of a run stand at the same batch of the same epoch."""
    if len(states) != states[0]["world_size"] or any(state != states[0] for state in states):
        raise DataError(
            f"the run had {states[0]['world_size']} ranks that stood at one place; the {len(states)} data positions "
            "given are not theirs"
        )
    return [{**states[0], "world_size": world_size} for _ in range(world_size)]


def _packed(states: list[dict], feeds: list[dict], world_size: int) -> list[dict]:
    held = {  # places in the endless order
        place(feed, number)
        for state, feed in zip(states, feeds)
        for number in {*state["waiting"], *(number for row in state["rows"] for number in row)}
    }
    for state, feed in zip(states, feeds):  # what is left of an earlier resharding
        held.update(feed["backlog"][state["next"] :])
    # every rank's next place behind its backlog; the ranks take turns from `start` on
    nexts = [place(feed, max(state["next"], len(feed["backlog"]))) for state, feed in zip(states, feeds)]
    furthest = max(nexts)
    for feed, first in zip(feeds, nexts):
        held.update(range(first, furthest, feed["world_size"]))
    backlog = sorted(held)
    made = []
    for rank in range(world_size):
        feed = {
            **feeds[0],
            "number": 0,
            "rank": rank,
            "world_size": world_size,
            "start": furthest,
            "backlog": backlog[rank::world_size],
        }
        fresh = {"next": 0, "waiting": [], "waited": 0, "rows": [], "feed": feed}
        made.append({**states[min(rank, len(states) - 1)], **fresh})
    if made[0]["statistics"] is not None:
        _deal_out_statistics(states, made)
    return made


def _deal_out_statistics(states: list[dict], made: list[dict]) -> None:
    """Sums over ranks stay what they were: rank 0 takes over everything."""
    counts = [key for key in states[0]["statistics"] if key != "pack_length"]
    for rank, state in enumerate(made):
        total = {key: sum(old["statistics"][key] for old in states) if rank == 0 else 0 for key in counts}
        state["statistics"] = {**states[0]["statistics"], **total}
