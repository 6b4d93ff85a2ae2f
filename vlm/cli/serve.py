"""`radio-vlm serve`: a model behind OpenAI's chat protocol, for evaluation harnesses and other clients."""

import argparse
import time
from pathlib import Path

HELP = "serve a model over OpenAI's chat protocol"
DESCRIPTION = (
    "Answers POST /v1/chat/completions (text, images and videos as data URLs; streaming; temperature 0 unless asked\n"
    "otherwise), GET /v1/models and GET /health. The answers are those of eval/run.py, word for word. Beside its\n"
    "video_url a part may say max_frames, fps, start and end (seconds) of a file, or timestamps (seconds) of frames\n"
    "(data:video/png;base64,FRAME,FRAME,...). It listens on this machine alone unless --host says otherwise, and asks\n"
    "nobody for a key: open it to trusted networks only."
)
EPILOG = """examples:
  radio-vlm serve --model runs/demo/export
  python eval/run.py --model openai:export@http://127.0.0.1:8000/v1 --data my_data/      the same scores as locally
  radio-vlm serve --model llava-hf/llava-1.5-7b-hf --port 9000        any image-text-to-text model of transformers"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="checkpoint or adapter folder, or hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--name", help="what clients call the model (default: the folder's name, or the hub id)")
    parser.add_argument("--batch-size", type=int, default=8, help="requests answered together (default: 8)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, metavar="N", help="where a request sets no limit (default: 512)"
    )
    parser.add_argument(
        "--pruning-rate", type=float, metavar="Q", help="share of video tokens left out (default: the model's)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto (as stored), float32, bfloat16, ... (default: auto)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that a checkpoint brings along")


def run(args: argparse.Namespace) -> int:
    from eval.backends.quiet import hide_kernel_warnings

    hide_kernel_warnings()
    server = open_server(args)
    host, port = server.server_address[:2]
    try:
        print(f"serving {server.entry['id']} at http://{host}:{port}/v1 (Ctrl-C ends)", flush=True)
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


def open_server(args: argparse.Namespace):
    """The server with its model loaded, listening; `serve_forever` answers. Raises RadioVLMError."""
    from eval.backends import open_backend
    from eval.backends.endpoint import OURS
    from eval.backends.open_media import VIDEO
    from eval.backends.opening import ENDPOINT
    from vlm.cli.serve_engine import Engine
    from vlm.cli.serve_http import ModelServer
    from vlm.errors import RadioVLMError

    if args.model.startswith(ENDPOINT):
        raise RadioVLMError(f"--model: {args.model} is served already")
    for name in ("batch_size", "max_new_tokens"):
        if getattr(args, name) < 1:
            raise RadioVLMError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    try:
        server = ModelServer((args.host, args.port))
    except (OSError, OverflowError) as error:  # found before minutes go into loading the model
        raise RadioVLMError(f"cannot listen on {args.host}:{args.port}: {error}") from error
    try:
        backend = open_backend(
            args.model, device=None if args.device == "auto" else args.device, dtype=args.dtype,
            trust_remote_code=args.trust_remote_code, pruning_rate=args.pruning_rate,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        server.server_close()
        raise RadioVLMError(str(error)) from error
    name = args.name or (Path(args.model).resolve().name if Path(args.model).is_dir() else args.model)
    entry = {"id": name, "object": "model", "created": int(time.time()), "owned_by": OURS}
    entry["fingerprint"] = backend.fingerprint
    if video := getattr(backend.processor, "video", None):  # what eval/run.py must know to shuffle frames, say
        entry["video"] = {name: video[name] for name in VIDEO}
    server.attach(Engine(backend, args.batch_size), entry, args.max_new_tokens)
    return server
