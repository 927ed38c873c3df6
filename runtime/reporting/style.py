"""How a report looks: its style sheet, by light and by dark, on a screen and on a phone."""

from __future__ import annotations

from ..charting.colours import VARIABLES

LAYOUT = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; overflow-wrap: anywhere; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 40px 0 12px; }
p { margin: 0 0 8px; }
.sub, .note, figcaption small { color: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0 0; padding: 0;
  list-style: none; font-size: .9rem; color: var(--muted); }
.legend b { color: var(--ink); font-weight: 600; overflow-wrap: anywhere; }
.legend svg { vertical-align: middle; margin-right: 6px; }
.tiles { display: grid; gap: 12px; margin: 22px 0 0;
  grid-template-columns: repeat(auto-fit, minmax(max(148px, 22%), 1fr)); }
.tile { background: var(--paper); border: 1px solid var(--grid); border-radius: 10px;
  padding: 12px 14px; }
.tile span { display: block; font-size: .8rem; color: var(--muted); }
.tile data { display: block; font-size: 1.5rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; background: var(--paper); border: 1px solid var(--grid); border-radius: 10px;
  padding: 12px 12px 6px; min-width: 0; }
figcaption { font-weight: 600; font-size: .92rem; margin: 0 0 2px 4px; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
.trouble { background: var(--paper); border: 1px solid var(--grid);
  border-left: 4px solid var(--bad); border-radius: 10px; padding: 12px 16px; margin: 18px 0 0; }
.trouble ul { margin: 0; padding-left: 18px; }
.trouble li { overflow-wrap: anywhere; }
.table { overflow-x: auto; background: var(--paper); border: 1px solid var(--grid);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 12px; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; color: var(--muted); }
tr > :first-child { text-align: left; }
thead th { white-space: normal; vertical-align: bottom; line-height: 1.25;
  overflow-wrap: normal; }
tbody th { color: var(--ink); }
.wide th, .wide td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.wide tbody th { color: var(--muted); font-weight: 500; width: 12em; }
td b { font-weight: 700; color: var(--ink); }
td small { display: block; color: var(--muted); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 8px; vertical-align: -1px; }
details { margin: 12px 0 0; }
summary { cursor: pointer; font-weight: 600; font-size: .95rem; padding: 4px 0; }
details > .table { margin-top: 8px; }
footer { margin-top: 36px; color: var(--muted); font-size: .85rem; }
@media (max-width: 640px) {
  main { padding: 20px 14px 36px; }
  h1 { font-size: 1.4rem; }
  .tiles { grid-template-columns: repeat(2, 1fr); gap: 10px; }
  .tile data { font-size: 1.3rem; }
  .cards thead { display: none; }
  .cards tr { display: grid; grid-template-columns: repeat(2, 1fr); padding: 8px 0;
    border-bottom: 1px solid var(--grid); }
  .cards tr:last-child { border-bottom: 0; }
  .cards th, .cards td { border: 0; text-align: left; padding: 3px 14px; white-space: normal; }
  .cards th { grid-column: 1 / -1; font-size: 1rem; }
  .cards td::before { content: attr(data-label); display: block; font-size: .78rem;
    color: var(--muted); }
}
@media print { body { background: #fff; } figure, .tile, .table { break-inside: avoid; } }
"""
BACK = "#f5f7f9", "#0f1318"


def style_sheet() -> str:
    """Returns the style sheet of a page."""
    colours = {"back": BACK, **VARIABLES}

    def variables(which: int) -> str:
        return " ".join(f"--{name}: {pair[which]};" for name, pair in colours.items())

    return (
        f":root {{ color-scheme: light dark; {variables(0)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(1)} }} }}\n{LAYOUT.strip()}\n"
    )
