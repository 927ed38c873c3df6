"""One self-contained page of programs: their pictures, and beside them the source of each kernel.

It needs no network, and can be read without its script: kernels in the picture are links to what is
said of them. The script shows one program at a time, opens what is linked to, and marks a value
wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from . import memory, style
from .layout import by_launch, layout
from .markup import add, make
from .picture import Kernel, Launch, Picture, amount
from .style import slug
from .svg import alone, kernels, legend

CSS = (
    f"""
:root{{{style.variables(0)};--accent:#2563eb}}
@media (prefers-color-scheme:dark){{:root{{{style.variables(1)};--accent:#7aa5f8}}}}
*{{box-sizing:border-box}}
html{{color-scheme:light dark}}
body{{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 {style.SANS}}}
header,nav,main{{padding:0 20px}}
h1{{font-size:22px;margin:18px 0 2px}} h2{{font-size:18px;margin:26px 0 6px}}
h3{{font-size:14px;margin:0;display:flex;gap:8px;flex-wrap:wrap;align-items:baseline}}
p{{margin:4px 0 10px}} .dim{{color:var(--dim)}} a{{color:var(--accent)}}
nav{{display:flex;flex-wrap:wrap;gap:8px;padding-top:10px;padding-bottom:4px}}
nav a{{padding:4px 12px;border:1px solid var(--edge);border-radius:99px;text-decoration:none}}
nav a.on{{background:var(--accent);border-color:var(--accent);color:var(--paper)}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}}
th,td{{padding:3px 12px 3px 0;text-align:left;white-space:nowrap}}
td.n,th.n{{text-align:right}} th{{color:var(--dim);font-weight:500}}
tr{{border-bottom:1px solid var(--edge)}}
.scroll{{overflow:auto;max-width:100%}}
.scroll svg{{display:block}}
.both svg{{width:100%;min-width:760px;height:auto}}
dd.lit{{background:var(--band);outline:1px solid var(--accent)}}
.both{{display:grid;grid-template-columns:minmax(0,1fr) minmax(380px,38%);
gap:18px;align-items:start}}
.said{{position:sticky;top:0;max-height:100vh;overflow:auto;padding:2px 2px 40vh}}
.launch{{border:1px solid var(--edge);border-radius:8px;background:var(--card);margin:0 0 10px}}
.launch>*{{padding:6px 10px}}
details>summary{{cursor:pointer}} .source>summary{{font-size:13px;color:var(--dim)}}
.kernel>summary{{display:flex;gap:8px;flex-wrap:wrap;align-items:baseline;list-style:none}}
.kernel>summary::before{{content:"▸";color:var(--dim)}} .kernel[open]>summary::before{{content:"▾"}}
.kernel+.kernel{{border-top:1px solid var(--edge)}}
.kernel:target,.kernel.here{{box-shadow:inset 3px 0 var(--c,var(--accent))}}
.kind{{color:var(--c);font-weight:600}}
pre{{overflow:auto;margin:6px 0;padding:8px 10px;background:var(--band);border-radius:6px;
font:12px/1.45 {style.MONO}}}
dl{{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 12px;
margin:6px 0;font-size:13px}}
dt{{color:var(--dim)}} dd{{margin:0;overflow-wrap:anywhere}}
.back{{margin-left:auto;font-size:12px;text-decoration:none}}
@media (max-width:900px){{header,nav,main{{padding-left:12px;padding-right:12px}}
.both{{display:block}} .said{{position:static;max-height:none;padding-bottom:0;margin-top:14px}}}}
"""
).strip()

SCRIPT = """
const programs = [...document.querySelectorAll("main>section")];
const links = [...document.querySelectorAll("nav a")];
function show(id) {
  for (const p of programs) p.hidden = p.id !== id;
  for (const a of links) a.classList.toggle("on", a.hash === "#" + id);
}
function mark(kernel) {
  for (const e of document.querySelectorAll(".here")) e.classList.remove("here");
  const drawn = document.getElementById("at-" + kernel.id);
  for (const e of [kernel, drawn]) if (e) e.classList.add("here");
}
function go() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const program = target && target.closest("main>section");
  if (program) show(program.id);
  else if (!programs.some(p => p.hidden)) show(programs[0].id);
  if (!program || target === program) return;
  if (target.matches("details")) target.open = true;
  if (target.matches("details.kernel")) {
    mark(target);
    const source = target.parentElement.querySelector("details.source");
    if (source) source.open = true;
  }
  const said = target.closest(".said");
  if (said && getComputedStyle(said).position === "sticky") {  // the picture stays where it is
    const below = said.getBoundingClientRect().top;
    if (below < 0 || below > innerHeight / 2) said.parentElement.scrollIntoView();
    said.scrollTop += target.getBoundingClientRect().top - said.getBoundingClientRect().top;
  } else target.scrollIntoView({block: said ? "start" : "center"});
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  go();
});
addEventListener("popstate", go);
go();
for (const p of programs) {
  const over = (on) => (event) => {
    const part = event.target.closest("[data-v]");
    if (part) for (const e of p.querySelectorAll(`[data-v="${part.dataset.v}"]`))
      e.classList.toggle("lit", on);
  };
  p.addEventListener("mouseover", over(true));
  p.addEventListener("mouseout", over(false));
}
""".strip()


def page(pictures: Sequence[Picture], title: str, notes: Sequence[str] = ()) -> str:
    """Returns a page of programs.

    Args:
        pictures: the programs.
        title: what they are programs of.
        notes: what else is to be said, as why a program is missing.
    """
    root = make("html", lang="en")
    head = add(root, "head")
    add(head, "meta", charset="utf-8")
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "title", title)
    add(head, "style", f"{CSS}\n{style.PICTURE}")
    body = add(root, "body")
    top = add(body, "header")
    add(top, "h1", title)
    add(top, "p", pictures[0].how, class_="dim")
    _table(top, pictures)
    for note in notes:
        add(top, "p", note, class_="dim")
    if len(pictures) > 1:
        links = add(body, "nav")
        for i, picture in enumerate(pictures):
            add(links, "a", picture.name, href=f"#p{i}")
    main = add(body, "main")
    for i, picture in enumerate(pictures):
        main.append(_program(picture, f"p{i}"))
    add(body, "script", SCRIPT)
    return f"<!DOCTYPE html>\n{ElementTree.tostring(root, encoding='unicode', method='html')}\n"


def _table(parent: Element, pictures: Sequence[Picture]) -> None:
    """Adds what programs take, a row each."""
    table = add(add(parent, "div", class_="scroll"), "table")
    names = list(dict.fromkeys(name for picture in pictures for name, _ in picture.facts))
    row = add(table, "tr")
    add(row, "th", "program")
    for name in names:
        add(row, "th", name, class_="n")
    for i, picture in enumerate(pictures):
        row = add(table, "tr")
        add(add(row, "td"), "a", picture.name, href=f"#p{i}")
        numbers = dict(picture.facts)
        for name in names:
            add(row, "td", numbers.get(name, ""), class_="n")


def _program(picture: Picture, name: str) -> Element:
    """Returns what is said of a program."""
    section = make("section", id=name)
    add(section, "h2", picture.name)
    over_time = memory.drawn(picture)
    box = add(section, "div", class_="scroll")
    key, height = legend(picture)
    box.append(alone(key, over_time.width, height))
    box.append(alone(over_time.element, over_time.width, over_time.height))
    both = add(section, "div", class_="both")
    places = layout(picture)
    drawn = kernels(picture, places, f"{name}-k")
    picture_of_all = alone(drawn, places.width, places.height)
    picture_of_all.set("style", f"max-width:{places.width:.0f}px")
    add(both, "div", class_="scroll").append(picture_of_all)
    said = add(both, "div", class_="said")
    for i, inside in by_launch(picture).items():
        said.append(_launch(picture, i, [picture.kernels[k] for k in inside], f"{name}-k{i}"))
    for skeleton, source in picture.skeletons.items():
        found = add(said, "details", id=f"{name}-s-{skeleton}", class_="launch")
        add(found, "summary", f"{skeleton}: written by hand, takes generated functions")
        add(found, "pre", source)
    return section


def _launch(picture: Picture, i: int, inside: Sequence[Kernel], name: str) -> Element:
    """Returns what is said of a launch: its kernels, and its source."""
    launch = picture.launches[i]
    section = make("section", class_="launch")
    for q, kernel in enumerate(inside):
        section.append(_kernel(picture, kernel, f"{name}-{q}"))
    if launch.note:
        add(section, "p", launch.note, class_="dim")
    if launch.source:
        _source(section, launch, i, name.partition("-")[0])
    return section


def _source(section: Element, launch: Launch, i: int, program: str) -> None:
    """Adds the generated functions of a launch, and how it is launched."""
    found = add(section, "details", class_="source")
    add(found, "summary", f"generated code of launch {i}")
    add(found, "pre", launch.source)
    if launch.skeletons:
        line = add(found, "p", "called by ", class_="dim")
        for skeleton in launch.skeletons:
            add(line, "a", skeleton, href=f"#{program}-s-{skeleton}").tail = " "
    listed = add(found, "dl")
    for what, settings in launch.settings:
        add(listed, "dt", what)
        add(listed, "dd", settings)


def _kernel(picture: Picture, kernel: Kernel, name: str) -> Element:
    """Returns what is said of a kernel."""
    found = make("details", class_=f"kernel k-{slug(kernel.kind)}", id=name)
    top = add(found, "summary")
    add(top, "span", str(kernel.launch), class_="dim")
    add(top, "span", kernel.kind, class_="kind")
    add(top, "span", kernel.space)
    add(top, "span", kernel.place, class_="dim")
    add(top, "a", "in the picture ↖", class_="back", href=f"#at-{name}")
    add(found, "pre", "\n".join(pill.line for pill in kernel.pills))
    listed = add(found, "dl")
    add(listed, "dt", "work")
    add(listed, "dd", f"{amount(kernel.flops, 'FLOP')}, {amount(kernel.traffic, 'B')} moved")
    for verb, places in (("reads", kernel.reads), ("writes", kernel.writes)):
        for place in places:
            add(listed, "dt", verb)
            kind = style.VALUES[picture.values[place].kind][-1]
            add(listed, "dd", f"{picture.said(place)}; {kind}", data_v=place)
    return found
