"""Leaving when asked to: SIGTERM or SIGUSR1 on any rank saves a complete checkpoint at the end of the running step.

Cluster schedulers send one of them before they take a machine back (Slurm: `--signal=USR1@300`). The stage ends with
exit code 75 ("temporary failure, try again"), and `resume=true` goes on where it stopped.
"""

import signal
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.ranks import any_rank

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Preempted(Exception):
    """Training stopped on a signal; everything is in the checkpoint it names."""

    def __init__(self, checkpoint: Path):
        super().__init__(f"stopped by a signal; go on from {checkpoint} with resume=true")
        self.checkpoint = checkpoint


class StopSignals(TrainerCallback):
    """Asks for a checkpoint at the end of a step in which a signal came to any rank. Comes before `Checkpoints`.

    A handler only sets a flag, so a second signal while the checkpoint is written changes nothing.
    """

    def __init__(self):
        self.received = self.agreed = False

    def on_train_begin(self, args, state, control, **kwargs):
        for number in SIGNALS:
            signal.signal(number, self._note)

    def on_step_end(self, args, state, control, **kwargs):
        # A signal may reach one rank only, and the ranks at different steps: they must agree on the step.
        if any_rank(self.received, args.device):
            self.agreed = control.should_save = True

    def _note(self, number, frame) -> None:
        self.received = True


class LeaveAfterSaving(TrainerCallback):
    """Ends the stage once the checkpoint that a signal asked for is complete. Comes after `Checkpoints`."""

    def __init__(self, signals: StopSignals):
        self.signals = signals

    def on_save(self, args, state, control, **kwargs):
        if self.signals.agreed:
            raise Preempted(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
