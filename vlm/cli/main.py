"""`radio-vlm COMMAND`: one file of this folder is one command; this one finds them and hands over.

A command's module holds HELP (one line), add_arguments(parser) and run(args) -> exit code; its heavy imports are inside
run.
"""

import argparse
import importlib
import logging
import pkgutil
import sys
from types import ModuleType

import vlm.cli
from vlm.errors import RadioVLMError


def commands() -> dict[str, ModuleType]:
    """Command name (dashes) -> module, for every module of this package that declares HELP."""
    found = {}
    for info in pkgutil.iter_modules(vlm.cli.__path__):
        module = importlib.import_module(f"vlm.cli.{info.name}")
        if hasattr(module, "HELP"):
            found[info.name.replace("_", "-")] = module
    return found


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="radio-vlm",
        description="Build, train, evaluate and use RADIO vision-language models.",
        epilog="`radio-vlm COMMAND --help` explains a command with examples.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in commands().items():
        sub = subparsers.add_parser(
            name,
            help=module.HELP,
            description=getattr(module, "DESCRIPTION", module.HELP),
            epilog=getattr(module, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line. A command with `words` takes its `key=value` words before and after its options alike."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest:
        if not hasattr(args, "words") or any(word.startswith("-") or "=" not in word for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        args.words += rest
    return args


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `radio-vlm` script. Errors in the user's input: one line and exit code 2, no traceback."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return args.run(args) or 0
    except RadioVLMError as error:
        sys.stderr.write(f"radio-vlm {args.command}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
