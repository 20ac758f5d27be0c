"""A page as its tags and its words, and a text that tries to become more than text."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Every tag with its attributes, and the visible text; tags must nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.pieces, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        return "".join(self.pieces)


def words(page):
    return " ".join(" ".join(Tags(page).pieces).replace("\u200b", "").split())
