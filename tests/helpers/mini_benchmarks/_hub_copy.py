"""A folder as `hf download` leaves it: parquet shards under the hub's names, a README whose YAML lists the splits."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class HubCopy:
    """The copy of one dataset repository below a data root."""

    def __init__(self, root: Path, repo: str) -> None:
        self.folder = Path(root) / repo
        self.configs: dict[str, dict[str, str]] = {}

    def table(
        self,
        rows: Sequence[dict[str, Any]],
        features: dict[str, Any],
        split: str,
        config: str | None = None,
        folder: str | None = None,
        shards: int = 1,
    ) -> Path:
        """Writes `rows` as `<folder>/<split>-00000-of-00001.parquet` and lists the split in the README.

        Args:
            features: column → feature of `datasets`, e.g. `{"image": Image(), "answers": [Value("string")]}`.
            config: None for a repository without configurations ("default").
            folder: default: the configuration's name, `data` without one, as `push_to_hub` does.
        """
        import pyarrow.parquet as pq
        from datasets import Dataset, Features

        folder = folder or config or "data"
        columns = {name: [row[name] for row in rows] for name in features}
        table = Dataset.from_dict(columns, features=Features(features)).data.table
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for shard in range(shards):
            path = self.folder / folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            start, end = (len(rows) * place // shards for place in (shard, shard + 1))
            pq.write_table(table.slice(start, end - start), path)
        self.configs.setdefault(config or "default", {})[split] = f"{folder}/{split}-*"
        self._write_readme()
        return path

    def file(self, name: str, content: bytes | str) -> Path:
        """Writes a file beside the tables: a video, an archive, a JSON file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def data_files(self, split: str, path: str, config: str | None = None) -> None:
        """Lists a split whose file was written by `file` (JSON, CSV) in the README."""
        self.configs.setdefault(config or "default", {})[split] = path
        self._write_readme()

    def _write_readme(self) -> None:
        lines = ["---", "configs:"]
        for config, splits in self.configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, path in splits.items():
                lines += [f"  - split: {split}", f"    path: {path}"]
        self.file("README.md", "\n".join([*lines, "---", f"# {self.folder.name}", ""]))


def picture(number: int, size: tuple[int, int] = (32, 24)) -> dict[str, Any]:
    """A small PNG as a row of an `Image` column holds it; every `number` below 4096 has a colour of its own."""
    from PIL import Image

    colour = tuple((number >> shift & 15) * 17 for shift in (0, 4, 8))
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, format="PNG")
    return {"bytes": stream.getvalue(), "path": f"{number}.png"}


def picture_of(path: str) -> int:
    """The `number` of the `picture` in a file: which picture a sample really shows."""
    from PIL import Image

    with Image.open(path) as opened:
        red, green, blue = (channel // 17 for channel in opened.convert("RGB").getpixel((0, 0)))
    return red | green << 4 | blue << 8


def edit_rows(path: Path, change: Callable[[list[dict[str, Any]]], Any], drop: Sequence[str] = ()) -> None:
    """Rewrites a parquet file with its rows changed in place by `change` (a None, a wrong value) or columns dropped.

    The declared features stay, as they do in a repository that has a bad row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    features = Features.from_arrow_schema(table.schema)
    kept = Features({name: feature for name, feature in features.items() if name not in drop})
    rows = [{name: row[name] for name in kept} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=kept.arrow_schema), path)
