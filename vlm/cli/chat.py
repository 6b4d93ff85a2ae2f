"""`radio-vlm chat`: ask a model about images, documents or videos; the answer is streamed as it is written."""

import argparse
from pathlib import Path

HELP = "ask a model about images, DICOM files, volumes, documents or a video"
DESCRIPTION = (
    "One question with --question, a conversation without it. Images (PNG, JPEG, TIFF, WebP, DICOM), documents (PDF,\n"
    "TIFF of several pages), volumes (a folder of DICOM slices, a multi-frame file, NIfTI) and videos belong to the\n"
    "first question; more can be added on the way. The answer is streamed token by token."
)
EPILOG = """examples:
  radio-vlm chat --model runs/demo/export --image receipt.png --question "TOTAL?"
  radio-vlm chat --model runs/demo/export --document report.pdf --pages 1-3 --question "What is the total?"
  radio-vlm chat --model runs/demo/export --video clip.mp4 --question "Which way does it move?"
  radio-vlm chat --model runs/demo/export --image slice.dcm --experts --question "Number?"
  radio-vlm chat --model runs/demo/export --volume ct_series --window lung --slices 6 --question "Lesions?"
  radio-vlm chat --model runs/demo/export --volume scan.nii.gz --modality MR --question "Which sequence?"
  radio-vlm chat --model runs/demo/export --image a.png b.png        a conversation about two images

in a conversation:
  /image FILE   /video FILE   /document FILE [PAGES]   add a file to the next question
  /volume PATH  add a folder of slices or a NIfTI file
  /reset        forget everything so far        /quit (or Ctrl-D)   leave        /help   this list"""
COMMANDS = EPILOG[EPILOG.index("in a conversation:") :]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="checkpoint folder or hub id")
    parser.add_argument("--image", nargs="+", action="extend", default=[], metavar="FILE", help="images or DICOM files")
    parser.add_argument("--document", nargs="+", action="extend", default=[], metavar="FILE", help="PDF or TIFF files")
    parser.add_argument(
        "--volume", nargs="+", action="extend", default=[], metavar="PATH", help="series folders, NIfTI"
    )
    parser.add_argument("--video", nargs="+", action="extend", default=[], metavar="FILE", help="video files")
    parser.add_argument("--question", metavar="TEXT", help="ask this and leave (default: a conversation)")
    parser.add_argument("--system", metavar="TEXT", help="system message (default: none)")
    parser.add_argument(
        "--expert", nargs="+", action="extend", default=[], metavar="NAME", help="expert models the model may call"
    )
    parser.add_argument(
        "--experts", nargs="*", metavar="NAME", help="the same; without names every known expert that fits the file"
    )
    parser.add_argument(
        "--expert-feedback", choices=("text", "overlay", "both"), default="text",
        help="what the model gets of an expert's mask (default: text)",
    )  # fmt: skip
    parser.add_argument(
        "--expert-log", metavar="FILE", help="append every expert call to this file, one JSON line each"
    )
    parser.add_argument(
        "--expert-weights", type=Path, metavar="DIR", help="folder with experts' weights (default: where each looks)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default), 1 samples"
    )
    parser.add_argument(
        "--thinking", choices=("on", "off"), help="reasoning on or off, for templates that know it (default: theirs)"
    )
    parser.add_argument("--pages", metavar="1-3,5", help="pages of the documents (default: all)")
    parser.add_argument("--dpi", type=float, metavar="N", help="dots an inch of a PDF page (default: 144)")
    parser.add_argument("--modality", metavar="CT|MR|...", help="of volumes whose file does not say it (NIfTI)")
    parser.add_argument(
        "--window", metavar="NAME", help="of CT volumes: lung, soft-tissue, brain, bone (default: the file's)"
    )
    parser.add_argument("--slices", type=int, metavar="N", help="slices of a volume (default: 8)")
    parser.add_argument("--max-frames", type=int, metavar="N", help="frames of a video (default: the model's)")
    parser.add_argument("--fps", type=float, metavar="F", help="frames a second of a video (default: the model's)")
    parser.add_argument(
        "--pruning-rate", type=float, metavar="Q", help="share of video tokens left out (default: the model's)"
    )
    parser.add_argument("--start", type=float, metavar="S", help="second at which a video starts (default: 0)")
    parser.add_argument("--end", type=float, metavar="S", help="second at which a video ends (default: its end)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto (as stored), float32, bfloat16, ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    from vlm.cli.loading import load_model, load_processor
    from vlm.cli.media_items import media_item, volume_items
    from vlm.errors import RadioVLMError

    if args.pages and not args.document:
        raise RadioVLMError("--pages chooses pages of a document: give one with --document FILE")
    session = expert_session(args)
    processor = load_processor(args.model)
    if args.pruning_rate is not None:
        try:
            processor.set_pruning_rate(args.pruning_rate)
        except ValueError as error:
            raise RadioVLMError(f"--pruning-rate: {error}") from error
    clip = {"max_frames": args.max_frames, "fps": args.fps, "start": args.start, "end": args.end}
    clip["defaults"] = processor.video
    items = [media_item(path, "image") for path in args.image]
    items += [media_item(path, "document", pages=args.pages, dpi=args.dpi) for path in args.document]
    items += [item for path in args.volume for item in volume_items(path, processor, **volume_options(args))]
    items += [media_item(path, "video", **clip) for path in args.video]  # files are checked before the weights load
    if session is not None:
        _say_notice()
    chat = Chat(load_model(args.model, args.device, args.dtype), processor, args, session)
    try:
        if args.question is not None:
            chat.ask(items, args.question)
            return 0
        return converse(chat, items, clip)
    finally:
        if session is not None:
            session.close()


def _say_notice() -> None:
    """Once, dim, and not where the answer goes: that may be piped on."""
    import sys

    from vlm.notice import NOTICE

    sys.stderr.write(f"\x1b[2m{NOTICE}\x1b[0m\n" if sys.stderr.isatty() else f"{NOTICE}\n")


def volume_options(args: argparse.Namespace) -> dict:
    """What is said about volumes."""
    return {"modality": args.modality, "window": args.window, "slices": args.slices}


def expert_session(args: argparse.Namespace):
    """The session that runs expert calls, or None when no expert is offered; an unknown name lists the known ones, and
    what this machine lacks for a known one is said before anything is loaded.
    """
    if not args.expert and args.experts is None:
        if args.expert_log or args.expert_feedback != "text" or args.expert_weights:
            from vlm.errors import RadioVLMError

            message = "--expert-log, --expert-feedback and --expert-weights need --experts or --expert NAME"
            raise RadioVLMError(message)
        return None
    from vlm.errors import RadioVLMError
    from vlm.experts import ExpertError, ExpertSession, get_expert
    from vlm.experts.weights import why_not

    root = args.expert_weights
    if root is not None and not root.is_dir():
        raise RadioVLMError(f"--expert-weights: no folder {root}")
    names = list(dict.fromkeys([*args.expert, *(args.experts or ())]))
    try:
        for name in names:  # said now, not at the first call, minutes after the model was loaded
            if reason := why_not(get_expert(name), root):
                hint = "" if root else "; --expert-weights names another folder of weights"
                raise RadioVLMError(f"--expert {name} cannot be used here: {reason}{hint}")
        return ExpertSession(names or None, feedback=args.expert_feedback, log=args.expert_log, weights=root)
    except ExpertError as error:
        raise RadioVLMError(f"--expert: {error}") from error
    except OSError as error:
        raise RadioVLMError(f"--expert-log: cannot write {args.expert_log}: {error.strerror}") from error


class Chat:
    """A conversation with one model: keeps the messages, streams each answer."""

    def __init__(self, model, processor, args: argparse.Namespace, session=None):
        self.model, self.processor, self.args, self.session = model, processor, args, session
        self.reset()

    def reset(self) -> None:
        self.messages = [{"role": "system", "content": self.args.system}] if self.args.system else []

    def ask(self, items: list[dict], question: str) -> str:
        """Put a question with its media; print the answer as it comes and return it. A refused turn is not kept."""
        turn = {"role": "user", "content": [*items, {"type": "text", "text": question}]}
        asked = [*self.messages, turn]
        if self.session is None:
            answer = self.generate([asked])[0]
            self.messages = [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
            return answer
        transcript = self.converse_with_experts(asked)
        # the cards are put into the first turn on every run, so the plain turn is kept, and what followed it
        self.messages = [*asked, *transcript.messages[len(asked) :]]
        return transcript.answer

    def converse_with_experts(self, asked: list[dict]):
        """The transcript; calls are shown as they happen, results by the session's own log lines."""
        from vlm.experts import Answer, CallFinished, CallStarted

        for event in self.session.stream(lambda messages: self.generate([messages]), asked):
            if isinstance(event, CallStarted) and event.trigger is not None:
                print(f"[asking {event.trigger}]", flush=True)
            elif isinstance(event, CallFinished) and event.call.ok:
                print(f"[{event.call.name} answered after {event.call.seconds:.1f} s]", flush=True)
            elif isinstance(event, Answer):
                return event.transcript

    def generate(self, conversations: list[list[dict]]) -> list[str]:
        """Answer one conversation, streaming to the terminal."""
        import torch
        from transformers import TextStreamer

        options = {} if self.args.thinking is None else {"enable_thinking": self.args.thinking == "on"}
        inputs = self.processor.apply_chat_template(
            conversations[0], add_generation_prompt=True, return_dict=True, return_tensors="pt", **options
        )
        inputs = {key: value.to(self.model.device) if hasattr(value, "to") else value for key, value in inputs.items()}
        streamer = TextStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        settings = {"max_new_tokens": self.args.max_new_tokens, "do_sample": self.args.temperature > 0}
        if settings["do_sample"]:
            settings["temperature"] = self.args.temperature
        with torch.inference_mode():
            output = self.model.generate(**inputs, **settings, streamer=streamer)
        new = output[0, inputs["input_ids"].shape[1] :]
        return [self.processor.tokenizer.decode(new, skip_special_tokens=True).strip()]


def converse(chat: Chat, items: list[dict], clip: dict) -> int:
    """Read questions until the end of input. Bad input costs a line, not the conversation."""
    from vlm.cli.media_items import media_item, volume_items
    from vlm.errors import RadioVLMError

    try:
        import readline  # noqa: F401 - its import gives input() line editing and history
    except ImportError:  # not on every platform
        pass
    print("Ask away. /help lists the commands, Ctrl-D leaves.")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return 0
        command, _, rest = line.partition(" ")
        try:
            if command in ("/quit", "/exit"):
                return 0
            if command == "/help":
                print(COMMANDS)
            elif command == "/reset":
                chat.reset()
                items = []
            elif command == "/document":
                items = [*items, document_item(rest.strip(), chat.args.dpi)]
            elif command == "/volume":
                items = [*items, *volume_items(rest.strip(), chat.processor, **volume_options(chat.args))]
            elif command in ("/image", "/video"):
                items = [*items, media_item(Path(rest.strip()), command[1:], **(clip if command == "/video" else {}))]
            elif command.startswith("/"):
                print(f"unknown command {command}; /help lists them")
            elif line:
                chat.ask(items, line)
                items = []
        except RadioVLMError as error:
            print(f"error: {error}")


def document_item(words: str, dpi: float | None) -> dict:
    """The item of "FILE" or "FILE PAGES"; a name with spaces goes before pages."""
    from vlm.cli.media_items import media_item

    name, _, pages = words.rpartition(" ")
    if Path(words).expanduser().is_file() or not name or not Path(name).expanduser().is_file():
        return media_item(words, "document", dpi=dpi)
    return media_item(name, "document", pages=pages, dpi=dpi)
