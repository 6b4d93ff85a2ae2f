"""A conversation of `radio-vlm chat` without a model and without a keyboard."""

import argparse

from vlm.cli.chat import Chat, add_arguments


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--model", "x", *words])


class Scripted(Chat):
    """A chat whose model is a list of replies; keeps what it was asked."""

    def __init__(self, replies, *words, session=None):
        super().__init__(None, None, arguments(*words), session)
        self.replies, self.asked = list(replies), []

    def generate(self, conversations):
        self.asked.append(conversations[0])
        return [self.replies.pop(0)]


def type_in(monkeypatch, *lines):
    queue = list(lines)

    def read(prompt=""):
        if not queue:
            raise EOFError
        return queue.pop(0)

    monkeypatch.setattr("builtins.input", read)
