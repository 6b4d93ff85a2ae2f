"""The Mamba-2 scan over a few chunks at once, and its gradient by hand: what ``llm.ssd_scan`` repeats along a sequence.

Letters of shapes: b batch, n chunks, l positions of a chunk, G groups, R heads of a group, P width of a head, N width
of the state. Inside a chunk ``y_i = Σ_{j<=i} (C_i·B_j) exp(a_i - a_j) u_j`` with ``u = dt x`` and ``a`` the running sum
of ``dt A``; between chunks only the state (P, N) of each head travels. Nothing of size (l, l) outlives a call.
"""

from dataclasses import dataclass

import torch

# Decays (natural log) below this count as nothing: e^-80 is 2e-35, and the denormal numbers that follow smaller ones
# make a CPU's products several times slower.
LEAST = -80.0


@dataclass
class Block:
    """What forward and backward share: cuts of the inputs, and their decays."""

    x: torch.Tensor  # (b, n, l, G, R, P)
    dt: torch.Tensor  # (b, n, l, G, R), fp32
    B: torch.Tensor  # (b, n, G, l, N)
    C: torch.Tensor  # (b, n, G, l, N)
    D: torch.Tensor | None  # (G, R, 1 or P), fp32
    matmul: torch.dtype  # of the operands of products; decays, states and sums are fp32 in any case
    total: torch.Tensor  # (b, n, G, R, l): `a` rounded to fp32 ...
    row: torch.Tensor  # (b, n, l, G, R): ... and what the rounding lost, as factors of the later
    column: torch.Tensor  # and of the earlier position of a pair
    reach: torch.Tensor  # (b, n, l, G, R): decay from before the chunk to a position
    left: torch.Tensor  # (b, n, l, G, R): decay from a position to the end of the chunk
    between: torch.Tensor  # (b, G, R, n + 1, n + 1): decay from boundary j of the block to boundary i
    hidden: torch.Tensor  # (b or 1, n or 1, 1, l, l): the pairs where position i does not see position j

    def maps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``B`` and ``C`` in the type of products."""
        return self.B.to(self.matmul), self.C.to(self.matmul)


def make_block(
    x: torch.Tensor,
    dt: torch.Tensor,
    log_decay: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    runs: torch.Tensor | None,
    before: torch.Tensor | None,
    D: torch.Tensor | None,
    matmul: torch.dtype,
) -> Block:
    """Inputs are cut into chunks, B and C (b, n, l, G, N); ``before`` (b,): run of the position before the block."""
    size = x.shape[2]
    # Running sums reach thousands where differences of 1e-3 count: sum in fp64, keep what fp32 cannot hold apart.
    exact = log_decay.double().cumsum(2)
    total = exact.float()
    lost = (exact - total).float()
    reach = _exp(exact)
    left = _exp(exact[:, :, -1:] - exact)
    kept = exact[:, :, -1]  # (b, n, G, R)
    hidden = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1).expand(1, 1, 1, size, size)
    if runs is not None:
        last = runs[:, :, -1]
        previous = torch.cat([before.unsqueeze(1), last[:, :-1]], 1)  # (b, n)
        reach = reach * (runs == previous.unsqueeze(2))[..., None, None]
        left = left * (runs == last.unsqueeze(2))[..., None, None]
        kept = kept.masked_fill((last != previous)[..., None, None], 2 * LEAST)
        hidden = hidden | (runs.unsqueeze(3) != runs.unsqueeze(2)).unsqueeze(2)
    return Block(
        x=x,
        dt=dt,
        B=B.transpose(2, 3),
        C=C.transpose(2, 3),
        D=D,
        matmul=matmul,
        total=total.movedim(2, 4).contiguous(),
        row=lost.exp(),
        column=lost.neg().exp(),
        reach=reach,
        left=left,
        between=_between(kept),
        hidden=hidden,
    )


def block_states(block: Block, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States before every chunk (b, n, G, R, P, N) and after the block, from that before it (b, G, R, P, N), fp32."""
    B, _ = block.maps()
    inputs = _by_group(_scaled(block.x, block.dt * block.left, block.matmul))
    added = (inputs.transpose(3, 4) @ B).float().unflatten(3, state.shape[2:4])
    if added.shape[1] == 1:
        return state.unsqueeze(1), torch.addcmul(added[:, 0], state, block.between[..., 1, 0, None, None])
    states = _mix(block.between, torch.cat([state.unsqueeze(1), added], 1))
    return states[:, :-1], states[:, -1]


def block_outputs(block: Block, states: torch.Tensor) -> torch.Tensor:
    """(b, n, l, G, R, P) in fp32, from the states before every chunk."""
    B, C = block.maps()
    inside = _decay(block).mul_(_scores(B, C, block).unsqueeze(3)).to(block.matmul)
    y = inside @ _scaled(block.x, block.dt * block.column, block.matmul).movedim(2, 4)  # (b, n, G, R, l, P)
    y = y.movedim(4, 2) * block.row.unsqueeze(5)
    carried = C @ states.flatten(3, 4).to(block.matmul).transpose(3, 4)
    y = torch.addcmul(y, _by_head(carried, block).float(), block.reach.unsqueeze(5))
    return y if block.D is None else torch.addcmul(y, block.x.float(), block.D)


def block_gradients(
    block: Block, states: torch.Tensor, gy: torch.Tensor, g_last: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of ``block_outputs`` and of the state after the block.

    Args:
        states: (b, n, G, R, P, N) before every chunk. gy: (b, n, l, G, R, P). g_last: (b, G, R, P, N).

    Returns:
        of x, dt, log_decay, B and C in the shapes that ``make_block`` takes, of D (None without), and of the state
        before the block (b, G, R, P, N).
    """
    B, C = block.maps()
    x, dt = block.x, block.dt
    # inside chunks; B and C feel the sum over the heads of a group
    decay, scores = _decay(block), _scores(B, C, block)
    later = _scaled(gy, block.row, block.matmul).movedim(2, 4)  # (b, n, G, R, l, P)
    earlier = _scaled(x, dt * block.column, block.matmul).movedim(2, 4)
    pairs = (later @ earlier.transpose(4, 5)).float().mul_(decay)  # (b, n, G, R, l, l)
    g_scores = pairs.sum(3).masked_fill_(block.hidden, 0.0).to(block.matmul)
    inside = decay.mul_(scores.unsqueeze(3)).to(block.matmul)
    g_inputs = (inside.transpose(4, 5) @ later).movedim(4, 2) * block.column.unsqueeze(5)
    # A pair (i, j) feels every step t with j < t <= i: below, what row i gains and column j loses is summed over all
    # positions from t on. Pairs behind t cancel, so sum in fp64, and leave out those of a position with itself.
    pairs = pairs.mul_(scores.unsqueeze(3)).double()
    pairs.diagonal(dim1=4, dim2=5).zero_()
    g_total = pairs.sum(5) - pairs.sum(4)  # (b, n, G, R, l)
    del decay, earlier, inside, pairs

    # through the states
    later = _by_group(_scaled(gy, block.reach, block.matmul))
    g_before = (later.transpose(3, 4) @ C).float().unflatten(3, g_last.shape[2:4])
    if g_before.shape[1] == 1:
        g_state = torch.addcmul(g_before[:, 0], g_last, block.between[..., 1, 0, None, None])
        g_after = g_last.unsqueeze(1)
    else:
        g_states = _mix(block.between.transpose(3, 4), torch.cat([g_before, g_last.unsqueeze(1)], 1))
        g_state, g_after = g_states[:, 0], g_states[:, 1:]
    before, after = states.flatten(3, 4).to(block.matmul), g_after.flatten(3, 4).to(block.matmul)
    inputs = _by_group(_scaled(x, dt * block.left, block.matmul))
    g_C = g_scores @ B + later @ before
    g_B = g_scores.transpose(3, 4) @ C + inputs @ after
    carried = _by_head(C @ before.transpose(3, 4), block)
    g_total = g_total + (_dot(carried, gy) * block.reach).movedim(2, 4)
    kept = block.between.diagonal(-1, 3, 4).movedim(3, 1)  # (b, n, G, R)
    g_kept = (g_after * states).sum((4, 5)) * kept
    outgoing = _by_head(B @ after.transpose(3, 4), block)
    g_left = _dot(outgoing, x) * block.left

    # A step is felt by what comes at or after it in its own sample (a product with 0 and 1, so that not even rounding
    # reaches another one), and by what earlier positions leave to the next chunk.
    felt = (g_total.flatten(2, 3) @ (~block.hidden).squeeze(2).double()).unflatten(2, g_total.shape[2:4])
    g_log = felt.float().movedim(4, 2) + _sum_before(g_left * dt) + g_kept.unsqueeze(2)
    g_inputs = torch.addcmul(g_inputs, outgoing, block.left.unsqueeze(5))
    g_dt = _dot(g_inputs, x)
    g_x, g_D = g_inputs * dt.unsqueeze(5), None
    if block.D is not None:
        g_x = torch.addcmul(g_x, gy.float(), block.D)
        g_D = (gy.float() * x).sum((0, 1, 2)).sum_to_size(block.D.shape)
    return g_x, g_dt, g_log, g_B.transpose(2, 3), g_C.transpose(2, 3), g_D, g_state


def _exp(log: torch.Tensor) -> torch.Tensor:
    return log.exp().float().masked_fill(log < LEAST, 0.0)


def _between(kept: torch.Tensor) -> torch.Tensor:
    """(b, n, G, R) logs of what whole chunks keep -> (b, G, R, n + 1, n + 1)"""
    kept = kept.movedim(1, 3)
    ends = torch.cat([torch.zeros_like(kept[..., :1]), kept.cumsum(3)], 3)
    size = ends.shape[3]
    above = torch.ones(size, size, dtype=torch.bool, device=kept.device).triu(1)
    return _exp((ends.unsqueeze(4) - ends.unsqueeze(3)).masked_fill(above, 2 * LEAST))


def _decay(block: Block) -> torch.Tensor:
    """(b, n, G, R, l, l): exp(a_i - a_j) in fp32; where position i does not see position j, something small, not 0."""
    difference = block.total.unsqueeze(5) - block.total.unsqueeze(4)
    least = torch.full((), LEAST, device=difference.device)
    most = torch.where(block.hidden, LEAST, float("inf")).unsqueeze(3)
    return difference.clamp_(min=least, max=most).exp_()


def _scores(B: torch.Tensor, C: torch.Tensor, block: Block) -> torch.Tensor:
    """(b, n, G, l, l) in fp32: C_i·B_j, exactly 0 where position i does not see position j."""
    return (C @ B.transpose(3, 4)).float().masked_fill_(block.hidden, 0.0)


def _mix(between: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """(b, G, R, i, j) with (b, j, G, R, P, N) -> (b, i, G, R, P, N): what every boundary receives from the others."""
    return (between @ states.movedim(1, 3).flatten(4)).movedim(3, 1).unflatten(4, states.shape[4:])


def _scaled(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(b, n, l, G, R, P) times (b, n, l, G, R)"""
    return (x * scale.unsqueeze(5)).to(dtype)


def _by_group(x: torch.Tensor) -> torch.Tensor:
    """(b, n, l, G, R, P) -> (b, n, G, l, R·P)"""
    return x.flatten(4).transpose(2, 3)


def _by_head(x: torch.Tensor, block: Block) -> torch.Tensor:
    """(b, n, G, l, R·P) -> (b, n, l, G, R, P)"""
    return x.transpose(2, 3).unflatten(4, block.x.shape[4:])


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum over the width of the heads, fp32."""
    return (a * b).sum(5, dtype=torch.float32)


def _sum_before(x: torch.Tensor) -> torch.Tensor:
    """Running sum along dimension 2 without the position itself."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1].cumsum(2)], 2)
