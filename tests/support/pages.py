"""Pages that the tools write."""

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "wbr", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order; collects what it refers to and its text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.references, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        refers = ("src", "href", "xlink:href", "data", "action")
        self.references += [value for name, value in attributes if name in refers]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)
