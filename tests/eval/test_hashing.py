"""Fingerprints tell checkpoints apart, also where only a part in the middle of the weights was trained."""

import pytest

from eval import hashing
from eval.hashing import folder_fingerprint, input_hash


@pytest.mark.parametrize("whole", [hashing.WHOLE, 0])
def test_weights_that_differ_in_their_middle_alone(tmp_path, monkeypatch, whole):
    """Embeddings first, vision encoder last: stage 1 trains neither, and both ends of the file stay."""
    monkeypatch.setattr(hashing, "WHOLE", whole)
    size, trained = 6 << 20, slice(3 << 20, (3 << 20) + hashing.STEP)
    before, after = bytes(size), bytearray(size)
    after[trained] = b"\1" * hashing.STEP
    for name, content in (("a", before), ("b", after), ("c", before)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "optimizer.log").write_text(name)  # no part of the model
    a, b, c = (folder_fingerprint(tmp_path / name) for name in "abc")
    assert a == c != b
    (tmp_path / "c/config.json").write_text('{"geometry": 1}')
    assert folder_fingerprint(tmp_path / "c") != a


def test_a_series_is_its_files_wherever_it_lies(tmp_path):
    for name, words in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_text(words)
    volumes = [{"type": "volume", "volume": str(tmp_path / name)} for name in "abc"]
    one, same, other = (input_hash([{"role": "user", "content": [volume]}]) for volume in volumes)
    assert one == same != other
