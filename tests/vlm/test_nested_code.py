"""Trusting a checkpoint's own code trusts nothing that its parts name: a tokenizer's code is never run."""

import json

from transformers import AutoProcessor

import vlm  # noqa: F401
from tests.helpers.tiny_processor import tiny_processor


def test_code_named_by_the_tokenizer_is_not_run(tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_processor().save_pretrained(folder)
    mark = tmp_path / "ran"
    (folder / "foreign.py").write_text(
        f"import pathlib\nfrom transformers import PreTrainedTokenizerFast\npathlib.Path({str(mark)!r}).touch()\n\n\n"
        "class Foreign(PreTrainedTokenizerFast):\n    pass\n"
    )
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, "foreign.Foreign"]}}
    path.write_text(json.dumps(config))
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    assert not mark.exists() and type(processor.tokenizer).__name__ != "Foreign"
    assert processor.tokenizer.get_vocab() == tiny_processor().tokenizer.get_vocab()
