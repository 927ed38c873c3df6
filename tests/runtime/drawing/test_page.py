"""The page: complete, self-contained, its links lead somewhere."""

import re
from html.parser import HTMLParser

from newtriton.runtime.drawing.page import page

from .drawn import picture


class Read(HTMLParser):
    """The tags of a page, its links and what they may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.links, self.open = list[str](), list[str](), list[str]()
        self.text = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        self.open += [] if tag == "meta" else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read() -> tuple[str, Read]:
    shown = [picture("plain", name) for name in ("linearize", "quadratic", "kfac")]
    text = page(shown, 'a <b> & "c"', ["pch-1: <no> rule"])
    return text, Read(text)


def test_tags_are_closed_and_links_lead_somewhere() -> None:
    _, found = read()
    assert not found.open
    assert len(found.names) == len(set(found.names))
    assert all(link[0] == "#" and link[1:] in found.names for link in found.links)


def test_it_needs_no_network() -> None:
    text, _ = read()
    addresses = set(re.findall(r"https?://[^\"'\s<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(?:link|img|iframe)|src=|@import|url\(", text)


def test_every_kernel_has_its_nodes_its_costs_and_its_source() -> None:
    text, found = read()
    shown = picture("plain", "quadratic")
    for q, kernel in enumerate(shown.kernels):
        place = sum(k.launch == kernel.launch for k in shown.kernels[:q])
        assert f"p1-k{kernel.launch}-{place}" in found.names
        assert f"at-p1-k{kernel.launch}-{place}" in found.names
        assert "\n".join(pill.line for pill in kernel.pills) in found.text
    for launch in shown.launches:
        assert launch.source in found.text
        assert all(settings in found.text for _, settings in launch.settings)
    assert 'a <b> & "c"' in found.text
    assert "pch-1: <no> rule" in found.text
    assert "<no>" not in text
