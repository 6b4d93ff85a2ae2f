"""A local HTTP server that answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, finish="stop", prompt_tokens=7, tokens=3):
    """A chat completion of one choice."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    message = {"role": "assistant", "content": text}
    return 200, {}, {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


class Script:
    """`answer(request)` gives (status, headers, JSON or bytes or None: hang up); `seen` holds (path, headers, body).

    `models`: entries of /models, or such an answer.
    """

    def __init__(self, answer, models=None):
        self.answer, self.models, self.seen = answer, models, []
        self.lock = threading.Lock()

    @property
    def bodies(self):
        return [body for _, _, body in self.seen if body is not None]


@contextmanager
def served(script: Script):
    """The base URL of the running server."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            listed = script.models if script.models is not None else (404, {}, {})
            self.reply(listed if isinstance(listed, tuple) else (200, {}, {"data": listed}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.seen.append((self.path, dict(self.headers), body))
            self.reply(script.answer(body))

        def reply(self, answer):
            status, headers, content = answer
            if content is None:
                self.close_connection = True
                return
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
