"""Small PDF files written by hand, so that tests decide every box, flag and byte of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

RGB = {"red": "1 0 0", "green": "0 1 0", "blue": "0 0 1", "black": "0 0 0"}
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def page(content: str = "", size: Sequence[float] = (72, 72), **keys: str) -> dict:
    """A page: `content` are drawing operators; keys are entries of its dictionary, e.g. Rotate="90"."""
    return {"content": content, "keys": {"MediaBox": f"[0 0 {size[0]} {size[1]}]", **keys}}


def box(colour: str, x: float, y: float, width: float, height: float) -> str:
    """Drawing operators of a filled rectangle; y counts from the bottom."""
    return f"{RGB[colour]} rg {x} {y} {width} {height} re f"


def words(text: str, size: int = 20) -> str:
    """Drawing operators of a line of text in the middle of a page (font F1)."""
    return f"BT /F1 {size} Tf 6 30 Td ({text}) Tj ET"


def pdf(pages: Sequence[dict], extra: Sequence[str] = (), catalog: str = "", trailer: str = "") -> bytes:
    """A PDF 1.4 file. `extra`: further objects, numbered from 10."""
    objects = {1: f"<< /Type /Catalog /Pages 2 0 R {catalog} >>".encode()}
    objects[3] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    for number, body in enumerate(extra, 10):
        objects[number] = body.encode("latin-1")
    first = 100
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    objects[2] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode()
    for number, one in enumerate(pages):
        here = first + 2 * number
        keys = " ".join(f"/{key} {value}" for key, value in one["keys"].items())
        fonts = "/Resources << /Font << /F1 3 0 R >> >>"
        objects[here] = f"<< /Type /Page /Parent 2 0 R {keys} {fonts} /Contents {here + 1} 0 R >>".encode()
        objects[here + 1] = stream(one["content"]).encode()
    out, places = bytearray(b"%PDF-1.4\n"), {}
    for number, body in sorted(objects.items()):
        places[number] = len(out)
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in sorted(places.items()):
        out += f"{number} 1\n{place:010d} 00000 n \n".encode()
    out += f"trailer\n<< /Size {max(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def stream(content: str, keys: str = "") -> str:
    return f"<< {keys} /Length {len(content)} >>\nstream\n{content}\nendstream"


def encrypted_pdf(password: str) -> bytes:
    """An empty page behind a password: 40-bit RC4, revision 2 of the standard security handler."""
    secret = (password.encode() + _PADDING)[:32]
    owner = rc4(hashlib.md5(secret).digest()[:5], secret)  # noqa: S324 - the standard says MD5
    file_id = bytes(range(16))
    key = hashlib.md5(secret + owner + (0xFFFFFFFC).to_bytes(4, "little") + file_id).digest()[:5]  # noqa: S324
    user = rc4(key, _PADDING)
    encrypt = f"<< /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{user.hex()}> /P -4 >>"
    return pdf([page()], [encrypt], trailer=f"/Encrypt 10 0 R /ID [<{file_id.hex()}> <{file_id.hex()}>]")


def rc4(key: bytes, data: bytes) -> bytes:
    state, j, out = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def write_pages(path: Path, count: int = 3) -> Path:
    """A PDF whose page n shows the figure n and a box at another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = ("red", "green", "blue")
    made = [page(f"{words(str(n + 1))} {box(colours[n % 3], 8 * (n % 8), 0, 8, 16)}") for n in range(count)]
    path.write_bytes(pdf(made))
    return path
