"""The place between the last backward of a step and its update, with and without DeepSpeed; steps that are left out.

Without DeepSpeed transformers' loop clips, asks for the norm, then steps: there a skipped step is one that has no
gradients, which no optimizer of ours touches. With DeepSpeed the engine steps inside accelerate's `backward`: there it
goes the way of ZeRO's own overflow, which throws gradients away before moments, Muon's momentum or weights see them.
"""

from collections.abc import Callable

from accelerate.utils.deepspeed import DeepSpeedEngineWrapper


class GatedEngine(DeepSpeedEngineWrapper):
    """accelerate's wrapper with a question asked before each update."""

    def __init__(self, engine, may_update: Callable[[], bool]):
        """may_update: called by every rank after the last backward of a step; False leaves the step out."""
        super().__init__(engine)
        self.may_update = may_update

    def backward(self, loss, sync_gradients: bool = True, **kwargs) -> None:
        self.engine.set_gradient_accumulation_boundary(is_boundary=sync_gradients)
        self.engine.backward(loss, **kwargs)
        if not sync_gradients:
            return
        if self.may_update():
            self.engine.step()
        else:
            skip_step(self.engine)


def gradients_overflow(engine) -> bool:
    """Whether any rank's shard of the reduced gradients holds a number that is not finite; the same on all ranks."""
    return bool(engine.optimizer.has_overflow(engine.zero_optimization_partition_gradients()))


def skip_step(engine) -> None:
    """Let a DeepSpeed engine end its step without an update: gradients go, everything else stays."""
    optimizer = engine.optimizer

    def overflowed(*args, **kwargs) -> bool:
        optimizer.overflow = True
        return True

    # where ZeRO-1 and 2, and where ZeRO-3 decide that the gradients are of no use
    patched = {"check_grad_overflow": True, "has_overflow": overflowed}
    patched["_overflow_check_and_loss_scale_update"] = overflowed
    before = {name: vars(optimizer)[name] for name in patched if name in vars(optimizer)}
    vars(optimizer).update(patched)
    try:
        engine.step()
    finally:
        for name in patched:
            del vars(optimizer)[name]
        vars(optimizer).update(before)
    optimizer.overflow = False  # or transformers would hold the schedule back, which counts steps, not updates
