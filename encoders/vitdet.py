"""ViTDet windowing: most blocks attend inside windows of W x W patches, a few globally.

The schedule and the order of patches are those RADIO was trained with (NVlabs/RADIO; Li et al., arXiv 2203.16527): the
last block of each period is global, and the prefix tokens (class and register) sit out the windowed blocks. Works on a
batch of equal grids and on packed pictures alike: either way the windows of all pictures are one dense batch.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import nn

Grid = tuple[int, int]

DEFAULT_NUM_GLOBAL = 4
# Without gradients a windowed block runs over so many tokens at a time: its hidden layer then takes a fraction of the
# memory that a global block needs. (Smaller pieces come from the C heap, which keeps what is freed.)
CHUNK_TOKENS = {"cpu": 8192, "cuda": 65536}


def window_schedule(depth: int, num_global: int | None = None, num_windowed: int | None = None) -> tuple[bool, ...]:
    """Whether each of `depth` blocks is windowed.

    Args:
        num_global: number of periods (4 if neither is given); a depth that is no multiple of it ends with one more
            global block, as in SO400M: blocks 5, 11, 17, 23 and 26 of 27.
        num_windowed: windowed blocks between two global ones; wins over `num_global`.

    Raises:
        ValueError: for a schedule without a windowed block.
    """
    if num_windowed is not None:
        period = num_windowed + 1
    elif num_global is not None and num_global < 1:
        raise ValueError(f"vitdet_num_global={num_global}: at least one block is global")
    else:
        period = max(depth // (num_global or DEFAULT_NUM_GLOBAL), 1)
    if period < 2:
        given = f"{num_global or DEFAULT_NUM_GLOBAL} global blocks" + " (the default)" * (num_global is None)
        given = f"vitdet_num_windowed={num_windowed}" if num_windowed is not None else given
        raise ValueError(
            f"{given} leave no windowed block among {depth}: set vitdet_num_global to at most {depth // 2}, or "
            "vitdet_window_size to 0 for no windows"
        )
    return tuple(i % period != period - 1 for i in range(depth - 1)) + (False,)


@lru_cache(maxsize=256)
def window_order(rows: int, columns: int, window: int) -> torch.Tensor:
    """`(rows * columns,)`: raster index of each patch in window-major order (windows and their insides row-major)."""
    index = torch.arange(rows * columns).view(rows // window, window, columns // window, window)
    return index.permute(0, 2, 1, 3).flatten()


class Windows:
    """Cuts the token sequences `(B, T, D)` of one pass into windows and puts them together again.

    Args:
        grids: of the pictures in one row of the batch: one for a dense batch, all of them for packed pictures.
        prefix: class and register tokens before the patches of each picture.
        window: side in patches; both sides of every grid are multiples of it.
    """

    def __init__(self, grids: list[Grid], prefix: int, window: int, device: torch.device) -> None:
        order, patches, start = [], [], 0
        for rows, columns in grids:
            first = start + prefix
            order += [torch.arange(start, first), window_order(rows, columns, window) + first]
            patches.append(torch.arange(first, first + rows * columns))
            start = first + rows * columns
        self.order = torch.cat(order).to(device)
        self.inverse = torch.empty_like(self.order)
        self.inverse[self.order] = torch.arange(start, device=device)
        self.patches = torch.cat(patches).to(device)
        kept = torch.ones(start, dtype=torch.bool, device=device)
        kept[self.patches] = False
        self.prefixes = kept.nonzero()[:, 0]
        # where each token of the sequence stands in [all prefixes, all patches]
        self.joined = torch.cat([self.prefixes, self.patches]).argsort()
        self.dense = len(grids) == 1
        self.prefix, self.area = prefix, window * window

    def cut(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Window-major `(B, T, D)` → prefix tokens `(B, S, D)` and windows `(B * windows, W * W, D)`."""
        if self.dense:
            prefixes, patches = x[:, : self.prefix], x[:, self.prefix :]
        else:
            prefixes, patches = x[:, self.prefixes], x[:, self.patches]
        return prefixes, patches.reshape(-1, self.area, x.shape[-1])

    def join(self, prefixes: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """The inverse of `cut`."""
        patches = windows.reshape(prefixes.shape[0], -1, windows.shape[-1])
        together = torch.cat([prefixes, patches], dim=1)
        return together if self.dense else together[:, self.joined]


def run_windowed(
    layers: Iterable[nn.Module],
    box: list[torch.Tensor],
    schedule: tuple[bool, ...],
    windows: Windows,
    cu_seqlens: torch.Tensor | None = None,
    tap: Callable[[int, torch.Tensor], None] | None = None,
    **kwargs,
) -> torch.Tensor:
    """Tokens `(B, T, D)` through the blocks, windowed where `schedule` says so; raster order in and out.

    `box` holds the tokens and is emptied: nothing keeps them while the blocks run. `tap(index, tokens)` sees the output
    of every block, `(B, T, D)` in raster order.
    """
    x, prefixes, cut = box.pop()[:, windows.order], None, None
    for index, (layer, windowed) in enumerate(zip(layers, schedule)):
        if windowed:
            if cut is None:
                prefixes, cut = windows.cut(x)
                if not torch.is_grad_enabled():
                    prefixes, x = prefixes.clone(), None  # or the uncut tokens would stay alive as well
            cut = _run_block(layer, cut, **kwargs)
        else:
            if cut is not None:
                x, cut = windows.join(prefixes, cut), None
            x = layer(x, cu_seqlens=cu_seqlens, **kwargs) if cu_seqlens is not None else layer(x, **kwargs)
        if tap is not None:
            tap(index, (x if cut is None else windows.join(prefixes, cut))[:, windows.inverse])
    if cut is not None:  # stopped early
        x = windows.join(prefixes, cut)
    return x[:, windows.inverse]


def _run_block(layer: nn.Module, windows: torch.Tensor, **kwargs) -> torch.Tensor:
    """One windowed block; without gradients in pieces, since windows do not see each other."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return layer(windows, **kwargs)
    step = max(CHUNK_TOKENS.get(windows.device.type, CHUNK_TOKENS["cuda"]) // windows.shape[1], 1)
    if windows.shape[0] <= step:
        return layer(windows, **kwargs)
    return torch.cat([layer(piece, **kwargs) for piece in windows.split(step)])
