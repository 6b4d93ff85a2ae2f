"""`radio-vlm train`: the stages of a recipe folder one after another, as commands a person could type.

Finished stages are skipped, a killed one is taken up again, and a guard may stop the run when a stage made the model
forget what it could do.
"""

import argparse
import shlex
import shutil
import signal
import sys
from pathlib import Path

HELP = "train the stages of a recipe folder, skipping what is finished"
DESCRIPTION = (
    "Runs the stage files of a folder in order, each by the right launcher, with a log each below RUN/logs. A stage\n"
    "that is finished is skipped, one that was killed goes on from its last checkpoint. pipeline.yaml in the folder\n"
    "may name the order, how the first model is built, and a guard that evaluates the model before the first stage\n"
    "and after each. `key=value` words go to every stage, `STAGE:key=value` to one."
)
EPILOG = """examples:
  radio-vlm train my_recipe/
  radio-vlm train my_recipe/ --dry-run
  radio-vlm train my_recipe/ --out runs/second --processes 8 data.root=/data tuning:train.max_steps=2000
  radio-vlm train my_recipe/ --from tuning                                 train this stage and those after it anew

exit codes: 0 done, 1 a stage failed, 2 the recipe cannot be run, 3 the guard stopped, 75 stopped by a signal (run the
same command again; with --from as the last line says)"""
FORGOTTEN, STOPPED = 3, 75
LAUNCH = "deepspeed.launcher.launch"  # the module that starts the processes of one machine
NOTES = {"skip": "finished, is skipped", "resume": "begun, is taken up again", "train": "will be trained"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RECIPE_FOLDER", help="stage files, and maybe a pipeline.yaml")
    parser.add_argument("words", nargs="*", metavar="key=value", help="options of the stages, as training/stage1.py's")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="begin here: train it and those after it anew")
    parser.add_argument("--to", dest="last", metavar="STAGE", help="end after this stage")
    parser.add_argument("--out", metavar="RUN", help="write every stage below this folder, each from the one before")
    parser.add_argument("--model", metavar="DIR|ID", help="what the first stage starts from")
    parser.add_argument("--processes", type=int, help="training processes a machine (default: one a GPU, or 2 on CPU)")
    parser.add_argument("--hostfile", metavar="FILE", help="machines, as the deepspeed launcher reads them")
    parser.add_argument("--guard", choices=("stop", "flag", "off"), help="instead of what the folder says")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and why, and stop")


def run(args: argparse.Namespace) -> int:
    from training.recipe import RecipeError
    from vlm.errors import RadioVLMError

    try:
        job = settle(args)
        if not args.dry_run:
            return job.run()
        job.show()
    except RecipeError as error:
        raise RadioVLMError(str(error)) from None
    return 0


def settle(args: argparse.Namespace) -> "Job":
    """What the command line asks for, checked against the folder and what lies there. Raises RecipeError."""
    import torch

    from training.pipeline.folder import read_folder
    from training.pipeline.stages import look, plan_stages
    from training.recipe import RecipeError

    if args.processes is not None and args.processes < 1:
        raise RecipeError(f"--processes {args.processes} must be 1 or more")
    pipeline = read_folder(args.folder)
    planned = plan_stages(pipeline, args.words, args.out, args.model)
    look(planned)
    first = 0 if args.first is None else pipeline.index(args.first)
    last = len(planned) - 1 if args.last is None else pipeline.index(args.last)
    if last < first:
        raise RecipeError(f"--to {args.last} comes before --from {args.first}")
    processes = args.processes or torch.cuda.device_count() or 2
    chosen = actions(planned, first, last, args.first is not None)
    job = Job(args, pipeline, planned[: last + 1], chosen, processes)
    job.check()
    return job


def actions(planned: list, first: int, last: int, anew: bool) -> list[str]:
    """"skip", "resume" or "train" for the stages up to `last`.

    Nothing that is finished or begun is overwritten unless `anew` (--from) says so.
    """
    from training.recipe import RecipeError

    chosen: list[str] = []
    for index, stage in enumerate(planned[: last + 1]):
        moved = next((one.name for one, action in zip(planned, chosen) if action != "skip"), None)  # before this one
        if index < first:
            if stage.state != "complete":
                raise RecipeError(f"stage {stage.name} before --from is not finished. {stage.why}".strip())
            chosen.append("skip")
        elif stage.state == "begun" and moved is None:
            chosen.append("resume")
        elif stage.state == "new" or anew:
            chosen.append("train")
        elif stage.state == "complete" and moved is None:
            chosen.append("skip")
        else:
            why = stage.why or f"{stage.output} was trained before stage {moved}, which this run trains"
            raise RecipeError(
                f"{why}. Keep it and name another --out FOLDER, or train it and what follows anew: "
                f"--from {moved or stage.name}"
                + (f" (stage {moved} goes on where it stands)" if "resume" in chosen else "")
            )
    return chosen


class Job:
    """A pipeline whose stages and their actions are settled."""

    def __init__(self, args, pipeline, planned: list, chosen: list[str], processes: int):
        self.args, self.pipeline, self.planned, self.chosen = args, pipeline, planned, chosen
        self.processes = processes
        self.guard = None if args.guard == "off" else pipeline.guard
        if self.guard is not None and args.guard:
            self.guard.action = args.guard
        self.stopped = False
        self.evaluations: list = []
        self.history: dict[str, list] = {}
        parents = {stage.output.parent for stage in planned}
        self.folder = Path(args.out) if args.out else sorted(parents)[0]
        self.start = planned[0].recipe.model
        self.builds = bool(pipeline.build) and not Path(self.start).exists() and not args.model
        self.data_root = (self.guard.data_root if self.guard else "") or planned[0].recipe.data.root or ""

    def check(self) -> None:
        """Raises RecipeError for what would stop the run later, maybe after days of training."""
        from training.pipeline.ready import check_guard, check_model, check_stage

        coming = [stage for stage, action in zip(self.planned, self.chosen, strict=True) if action != "skip"]
        names = ["start", *(stage.name for stage in self.planned)] if self.guard else []
        evaluated = [name for name in names if not self.kept(name)]
        if not self.builds and (self.planned[0] in coming or "start" in evaluated):
            check_model(self.planned[0])
        processes = None if self.args.hostfile else self.processes  # it may name any number of machines
        for place, stage in enumerate(coming):
            check_stage(stage, processes, made=[one.output for one in coming[:place]])
        if evaluated:
            check_guard(self.pipeline, self.guard, self.data_root, task_keys(self.guard.tasks))

    # ---- what will run -------------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[str, str, list[str]]]:
        """(kind, stage name, command) of everything in order; kinds: build, stage, guard."""
        from training.pipeline.commands import build_command, guard_command, stage_command

        steps = [("build", "start", build_command(self.pipeline, self.start))] if self.builds else []
        for name, model in [("start", self.start), *((stage.name, str(stage.output)) for stage in self.planned)]:
            if name != "start":
                index = self.pipeline.index(name)
                resume = self.chosen[index] == "resume"
                command = stage_command(self.planned[index], self.processes, self.args.hostfile, resume)
                steps.append(("stage", name, command))
            if self.guard is not None:
                steps.append(("guard", name, guard_command(self.guard, self.data_root, model, self.results(name))))
        return steps

    def results(self, name: str) -> Path:
        return self.folder / "guard" / f"{name}.json"

    def show(self) -> None:
        if self.pipeline.launch:
            print("made for " + ", ".join(f"{key} {value}" for key, value in self.pipeline.launch.items()))
        for kind, name, command in self.steps():
            if kind == "stage":
                stage, chosen = self.planned[self.pipeline.index(name)], self.chosen[self.pipeline.index(name)]
                note = NOTES[chosen] + (f" ({stage.why})" if stage.why else "")
                print(f"\nstage {name}: {note}\n  {stage.recipe.model} -> {stage.output}")
                if chosen == "skip":
                    continue
            elif kind == "guard" and self.kept(name):
                print(f"\nguard {name}: evaluated, is kept ({self.results(name)})")
                continue
            else:
                print(f"\n{'build the first model' if kind == 'build' else f'guard {name}'}")
            print(f"  {shlex.join(command)}")

    # ---- running -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        import torch

        from vlm.cli.steps import Runner, Step, StepFailed

        steps = self.steps()
        titles = {"build": "build the first model", "stage": "train {}", "guard": "guard {}"}
        threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
        listed = [Step(titles[kind].format(name), [command]) for kind, name, command in steps]
        runner = Runner(listed, self.folder / "logs", Path.cwd(), threads)
        count = f"{len(self.planned)} stages, {self.processes} processes"
        print(f"{self.pipeline.folder}: {count}; logs in {runner.log_dir}")
        before = signal.signal(signal.SIGTERM, lambda number, frame: self.stop(runner))
        flagged: list[str] = []
        try:
            for index, (kind, name, _) in enumerate(steps):
                if self.stopped:  # by a signal that met no process: it came between two commands, or as one ended
                    return self.leave(index)
                if kind == "stage":
                    self.run_stage(runner, index, name)
                elif kind == "build":
                    runner.run_step(index)
                elif not self.run_guard(runner, index, name):
                    flagged.append(name)
                    if self.guard.action == "stop":
                        print(
                            f"\nradio-vlm train: stopped by the guard after {name} (table: "
                            f"{self.folder / 'guard/guard.md'}). Mix in data of what was lost or lower the learning "
                            f"rate, then --from {name}; or go on as it is: --guard flag",
                            file=sys.stderr,
                        )
                        return FORGOTTEN
        except StepFailed as error:
            if self.stopped or error.code == STOPPED:
                return self.leave(index)
            print(f"\nradio-vlm train: {listed[index].title} failed; {self.after(index)}.\n{error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            self.stop(runner)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        print(f"model  {self.planned[-1].output}")
        if flagged:
            print(f"guard  flagged after {', '.join(flagged)}: see {self.folder / 'guard/guard.md'}")
        return 0

    def leave(self, index: int) -> int:
        """Says how to go on with what a signal stopped at a step; the exit code."""
        print(f"\nradio-vlm train: stopped by a signal; {self.again(index)} to go on", file=sys.stderr)
        return STOPPED

    def after(self, index: int) -> str:
        """What the same command will do about a step that failed."""
        from training.checkpoints import newest_checkpoint
        from training.recipe import RecipeError

        kind, name, _ = self.steps()[index]
        try:
            saved = kind == "stage" and newest_checkpoint(self.planned[self.pipeline.index(name)].output)
        except RecipeError:  # a checkpoint that cannot be read
            saved = None
        if saved:
            return f"it goes on from its last checkpoint when you {self.again(index)}"
        return f"mend what is wrong and {self.again(index)}; finished stages are skipped"

    def again(self, index: int) -> str:
        """How to go on at a step. With --from: what was named there is not to be trained anew once it is finished."""
        names = [name for kind, name, _ in self.steps()[index:] if kind == "stage"]
        left = [name for name in names if self.chosen[self.pipeline.index(name)] != "skip"]
        option = "" if self.args.first is None else f" with --from {left[0]}" if left else " without --from"
        return "run the same command again" + option

    def stop(self, runner) -> None:
        """SIGTERM came: the processes that train are told, which save and leave.

        Not the launcher: on one machine it would leave alone and they would go on, and where it passes the signal on it
        waits half a minute only.
        """
        self.stopped = True
        for child in runner.running:
            for process in training_processes(child.process.pid):
                process.terminate()

    def run_stage(self, runner, index: int, name: str) -> None:
        """Trains a stage unless it is finished, with marks before and after."""
        from training.pipeline import marks

        place = self.pipeline.index(name)
        stage, chosen = self.planned[place], self.chosen[place]
        if chosen == "skip":
            print(f"stage {name} is finished: {stage.output}")
            return
        if chosen == "train":
            before = marks.read_mark(self.planned[place - 1].output) if place else None
            for old in stage.output.glob("checkpoint-*"):  # of another training: resuming must not find them
                shutil.rmtree(old, ignore_errors=True)
            marks.begin(stage.output, stage.hash, before.id if before else None)
        runner.run_step(index)
        marks.finish(stage.output)

    def run_guard(self, runner, index: int, name: str) -> bool:
        """Evaluates a model, unless the same was asked of the same model before; prints the table. False: it forgot."""
        from training.pipeline import forgetting

        path = self.results(name)
        if not self.evaluated(name):
            runner.run_step(index)
            path.with_suffix(".key").write_text(self.key(name))
        self.evaluations.append(forgetting.read_results(path, name))
        verdicts = forgetting.judge(self.evaluations, self.guard)
        self.history[name] = verdicts
        forgetting.write_report(path.parent, self.evaluations, self.history, self.guard)
        if verdicts:
            print(forgetting.table(self.evaluations, verdicts))
        return not any(verdict.forgotten for verdict in verdicts)

    def evaluated(self, name: str) -> bool:
        """Whether there is a result of the model as it now is."""
        path = self.results(name)
        noted = path.with_suffix(".key")
        return path.is_file() and noted.is_file() and noted.read_text() == self.key(name)

    def kept(self, name: str) -> bool:
        """Whether the result that is there will still hold when the run comes to it."""
        stays = not self.builds if name == "start" else self.chosen[self.pipeline.index(name)] == "skip"
        return stays and self.evaluated(name)

    def key(self, name: str) -> str:
        """What an evaluation depends on: the questions, and which training made the model."""
        from training.pipeline import forgetting, marks

        folder = Path(self.start) if name == "start" else self.planned[self.pipeline.index(name)].output
        mark, config = marks.read_mark(folder), folder / "config.json"
        made = mark.id if mark else config.stat().st_mtime_ns if config.is_file() else str(folder)
        return f"{forgetting.settings_hash(self.guard, self.data_root)} {made}"


def task_keys(names: list[str]) -> dict[str, str]:
    """Name of an evaluation task -> what its data folder is called. Raises RecipeError for unknown names."""
    if not names:
        return {}
    from eval.registry import UnknownNameError
    from eval.tasks import get_task
    from training.recipe import RecipeError

    try:
        return {name: get_task(name).key for name in names}
    except UnknownNameError as error:
        raise RecipeError(f"guard.tasks: {error}") from None


def training_processes(pid: int) -> list:
    """The processes below a launcher that were started to train, or the process itself where there is no launcher.

    Their own children (data workers) are left to them.
    """
    import psutil

    try:
        top = psutil.Process(pid)
        spawners = [one for one in (top, *top.children(recursive=True)) if LAUNCH in one.cmdline()]
        return [child for one in spawners for child in one.children()] or [top]
    except psutil.NoSuchProcess:
        return []
