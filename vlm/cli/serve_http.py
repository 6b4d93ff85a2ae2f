"""The HTTP side of `radio-vlm serve`: the standard library's threading server over one `Engine`. Not a command."""

import json
import logging
import queue
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vlm.cli.serve_engine import ClientGoneError, Engine, Job
from vlm.cli.serve_protocol import Completion, RequestError, finish_reason, read_request

logger = logging.getLogger(__name__)

MAX_BODY = 256 << 20  # bytes
SILENCE = 120.0  # seconds after which a connection without a byte is closed
COMPLETIONS, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"


class ModelServer(ThreadingHTTPServer):
    """Serves one model. Address and port are those of `server_address`; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128  # connections that the system keeps while none is accepted

    engine: Engine | None = None

    def __init__(self, address: tuple[str, int]):
        """Listens; clients wait until there is a model to `serve_forever`. Raises OSError where the port is taken."""
        super().__init__(address, Handler)

    def attach(self, engine: Engine, entry: dict, max_new_tokens: int) -> None:
        """`entry`: what /v1/models says; its `id` is the model's name. `max_new_tokens`: where a request sets none."""
        self.engine, self.entry, self.max_new_tokens = engine, entry, max_new_tokens

    def server_close(self) -> None:
        super().server_close()
        if self.engine is not None:
            self.engine.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "radio-vlm", ""
    timeout = SILENCE
    server: ModelServer

    def log_message(self, format: str, *args) -> None:
        logger.debug("%s %s", self.address_string(), format % args)

    def do_GET(self) -> None:
        path, entry = unquote(urlsplit(self.path).path).rstrip("/"), self.server.entry
        if path == HEALTH:
            self._json(200, {"status": "ok"})
        elif path == MODELS:
            self._json(200, {"object": "list", "data": [entry]})
        elif path == f"{MODELS}/{entry['id']}":
            self._json(200, entry)
        elif path == COMPLETIONS:
            self._refuse(RequestError("questions are asked with POST", 405))
        else:
            self._refuse(RequestError(f"nothing at {path[:100]!r}; there is {COMPLETIONS}, {MODELS}, {HEALTH}", 404))

    def do_POST(self) -> None:
        started = time.perf_counter()
        try:
            body = self._body()
            if urlsplit(self.path).path.rstrip("/") != COMPLETIONS:
                raise RequestError(f"nothing at {self.path[:100]!r}; questions go to {COMPLETIONS}", 404)
            with tempfile.TemporaryDirectory(prefix="radio-vlm-") as folder:
                asked = read_request(body, self.server.entry["id"], self.server.max_new_tokens, Path(folder))
                job = self.server.engine.prepare(asked)
            self._stream(job) if asked.stream else self._whole(job)
        except RequestError as error:
            self._refuse(error)
        except (BrokenPipeError, ConnectionResetError, ClientGoneError):
            self.close_connection = True
            logger.info("a client left before its answer")
            return
        except Exception as error:  # ours to mend, but not by leaving the client without an answer
            logger.exception("a request could not be handled")
            self._refuse(RequestError(f"{type(error).__name__}: {error}", 500))
        logger.info("%s %s %.2f s", self.client_address[0], self.path, time.perf_counter() - started)

    def _body(self) -> bytes:
        """Raises RequestError for a body that is too large, of no known length or no JSON."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True  # where it ends, and so the next request begins, is unknown
            raise RequestError("Content-Length is needed", 411)
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise RequestError(f"the body has {int(length):,} bytes; at most {MAX_BODY:,} are read", 413)
        body = self.rfile.read(int(length))
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":  # a web page of a stranger can post other types to this machine unasked
            raise RequestError(f"Content-Type must be application/json, not {kind[:60]}", 415)
        return body

    def _whole(self, job: Job) -> None:
        reply = self._finished(self.server.engine.submit(job))
        self._json(200, Completion(self.server.entry["id"]).whole(reply))

    def _finished(self, future):
        try:
            return future.result()
        except (RequestError, ClientGoneError):
            raise
        except Exception as error:
            raise RequestError(f"the model failed: {type(error).__name__}: {error}", 500) from error

    def _stream(self, job: Job) -> None:
        """Server-sent events. Once the first is out an error can only be one of them."""
        pieces: queue.Queue[str | None] = queue.Queue()
        gone = False

        def emit(piece: str) -> None:
            if gone:
                raise ClientGoneError
            pieces.put(piece)

        job.emit = emit
        future = self.server.engine.submit(job)
        future.add_done_callback(lambda _: pieces.put(None))
        completion = Completion(self.server.entry["id"])
        try:
            self.send_response(200)
            for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")):
                self.send_header(name, value)
            self.send_header("Connection", "close")  # the end of the stream is the end of the connection
            self.end_headers()
            self.close_connection = True
            self._event(completion.chunk({"role": "assistant", "content": ""}))
            while (piece := pieces.get()) is not None:
                self._event(completion.chunk({"content": piece}))
            try:
                reply = self._finished(future)
            except RequestError as error:
                self._event(error.body())
            else:
                self._event(completion.chunk({}, finish_reason(reply)))
                if job.request.stream_usage:
                    self._event(completion.usage_chunk(reply))
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            gone = True
            raise ClientGoneError from None

    def _event(self, content: dict) -> None:
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")
        self.wfile.flush()

    def _refuse(self, error: RequestError) -> None:
        logger.info("refused (%d): %s", error.status, error.message)
        self._json(error.status, error.body(), {"Retry-After": "1"} if error.status == 503 else {})

    def _json(self, status: int, content: dict, headers: dict | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        about = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        if self.close_connection:
            about["Connection"] = "close"
        for name, value in about.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
