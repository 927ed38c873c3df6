"""What the site adds to the pages: names of the package lead to the reference.

Pages are plain Markdown, which a forge shows as well: what only the site understands stands here.
"""

from __future__ import annotations

import re
from typing import Any

# `nt.FITRE`, `nt.fit(…)` and `FITRE`: code that is a name, with or without a call.
NAME = re.compile(r"<code>((?:nt\.|newtriton\.)?([A-Za-z]\w*(?:\.\w+)?))(\([^<]*\))?</code>")
# Headings have links of their own, and what is a link already stays as it is.
KEPT = re.compile(r"(<h[1-6].*?</h[1-6]>|<a\b.*?</a>|<pre\b.*?</pre>)", re.DOTALL)


def _link(found: re.Match[str]) -> str:
    shown, name, call = found[1], found[2], found[3] or ""
    if shown == name and not name[0].isupper():
        return found[0]
    return f'<autoref identifier="newtriton.{name}" optional><code>{shown}{call}</code></autoref>'


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Leaves the list of sections out of the home page."""
    if page.is_homepage:
        page.meta["hide"] = ["toc"]


def on_page_content(html: str, **_: Any) -> str:
    """Turns code that is a public name into a link, where the reference has the name."""
    pieces = KEPT.split(html)
    pieces[::2] = [NAME.sub(_link, piece) for piece in pieces[::2]]
    return "".join(pieces)
