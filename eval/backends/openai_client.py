"""JSON over HTTP to an OpenAI-compatible server: patient with a busy one, exact about a refusal, silent about the key.

The standard library's client: nothing of ours depends on which HTTP package another package brings along, and none of
them writes request lines into the log.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

BUSY = (408, 425, 429, 500, 502, 503, 504, 529)  # worth another try
ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds, also where the server asks for more
MAX_ANSWER = 64 << 20  # bytes
SHORTEST_SECRET = 8  # characters; local servers are given words like EMPTY, which may stand in any answer
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerError(ValueError):
    """The server refused a request, or gave no usable answer; its own words are in the message."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(ServerError):
    """No server answered."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, and turn a POST into a GET."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class JsonServer:
    """One server. May be used from several threads."""

    def __init__(
        self, base_url: str, api_key: str | None, timeout: float, first_wait: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`first_wait`: seconds before the second try; doubled each time. `sleep` waits.

        Raises ValueError for an address that holds a password or a query.
        """
        parts = urlsplit(base_url)
        if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
            raise ValueError(
                "the address of a server is http(s)://HOST[:PORT]/PATH; a key goes into OPENAI_API_KEY, not into the "
                "address, which results files repeat"
            )
        self.base_url, self._key, self.timeout = base_url.rstrip("/"), api_key, timeout
        self.first_wait, self._sleep = first_wait, sleep
        self._away = False  # out of reach when last tried to the end: then once is enough, until it is back
        proxies = [urllib.request.ProxyHandler({})] if parts.hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def get(self, path: str) -> Any:
        """The JSON at `path`. Raises ServerError, UnreachableError."""
        return self._ask(path, None)

    def post(self, path: str, payload: Any) -> Any:
        """The JSON answer to `payload`. Raises ServerError, UnreachableError."""
        return self._ask(path, json.dumps(payload).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        attempts = 1 if self._away else ATTEMPTS
        for attempt in range(attempts):
            wait = None
            try:
                answer = self._once(path, body)
                self._away = False
                return answer
            except urllib.error.HTTPError as error:
                self._away = False
                with error:
                    failure = self._refusal(error)
                    wait = retry_after(error.headers.get("Retry-After"))
                if error.code not in BUSY:
                    raise failure from None
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:  # URLError: also no TLS
                reason = getattr(error, "reason", error)
                words = self._clean(f"{type(reason).__name__}: {reason}")
                failure = UnreachableError(f"{self.base_url} gave no answer ({words})")
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise failure from None
            except ValueError as error:
                failure = ServerError(self._clean(f"{self.base_url}{path} answered no JSON: {error}"))
            if attempt + 1 < attempts:
                usual = self.first_wait * 2**attempt * random.uniform(1.0, 1.25)
                wait = min(usual if wait is None else wait, LONGEST_WAIT)
                logger.info("%s; again in %.1f s", failure, wait)
                self._sleep(wait)
        self._away = isinstance(failure, UnreachableError)
        raise failure

    def _once(self, path: str, body: bytes | None) -> Any:
        headers = {"Accept": "application/json", "User-Agent": "radio-vlm"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base_url + path, body, headers)
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self.timeout) as response:
            content = response.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER:,} bytes")
        return json.loads(content if body is not None else self._clean(content.decode(errors="replace")))

    def _refusal(self, error: urllib.error.HTTPError) -> ServerError:
        try:
            content = error.read(65536).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            content = ""
        try:
            about = json.loads(content)
            about = about.get("error", about.get("detail", about))
            words = about["message"] if isinstance(about, dict) and "message" in about else about
        except (ValueError, AttributeError):
            words = content
        words = " ".join(str(words).split())[:1000] or error.reason
        return ServerError(self._clean(f"the server answered {error.code}: {words}"), error.code)

    def _clean(self, text: str) -> str:
        """Servers like to repeat a wrong key."""
        return text.replace(self._key, "[key]") if self._key and len(self._key) >= SHORTEST_SECRET else text


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date; None for neither."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
