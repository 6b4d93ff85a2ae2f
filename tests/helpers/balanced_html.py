"""A reader that fails on HTML whose tags do not close in order, and notes what a page would fetch."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "path", "circle", "line", "rect"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order or left open; collects what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.headings = [], [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
