"""Colours and fonts of pictures and pages, light and dark, as CSS."""

from __future__ import annotations

from .picture import Kind

# By how a kernel is computed, its colour in the light and in the dark.
KERNELS = {
    "contraction": ("#2563eb", "#7aa5f8"),
    "outer": ("#7c3aed", "#b394f6"),
    "Gram": ("#c02672", "#f08cbd"),
    "patch Gram": ("#9d174d", "#e879a6"),
    "rows": ("#4d7c0f", "#a3cc52"),
    "pointwise": ("#0f766e", "#4cc7b8"),
    "passes": ("#c2410c", "#f59764"),
    "blocks": ("#92580c", "#dba75c"),
    "vendor": ("#475569", "#a3b1c6"),
    "operator": ("#475569", "#a3b1c6"),
    "pattern": ("#7c3aed", "#b394f6"),
    "maps": ("#0f766e", "#4cc7b8"),
    "view": ("#94a3b8", "#64748b"),
}
VALUES = {
    Kind.INPUT: ("#64748b", "#94a3b8", "input"),
    Kind.PARAMETER: ("#a16207", "#e2b54a", "parameter"),
    Kind.TAPE: ("#9333ea", "#c59bf7", "from the tape"),
    Kind.KEPT: ("#9333ea", "#c59bf7", "kept on the tape"),
    Kind.RESULT: ("#15803d", "#5fd08a", "result"),
    Kind.BETWEEN: ("#0369a1", "#5cb8e6", "between kernels"),
    Kind.LIBRARY: ("#475569", "#a3b1c6", "where a library puts it"),
}
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif"


def slug(kind: str) -> str:
    """Returns the name of a class of CSS."""
    return kind.replace(" ", "-").lower()


def variables(which: int) -> str:
    """Returns all colours as variables, those in the light (0) or in the dark (1)."""
    kernels = [f"--k-{slug(kind)}:{found[which]}" for kind, found in KERNELS.items()]
    values = [f"--v-{kind.value}:{found[which]}" for kind, found in VALUES.items()]
    return ";".join([(LIGHT, DARK)[which], *kernels, *values])


LIGHT = "--paper:#fbfbfd;--card:#fff;--ink:#1e2430;--dim:#667085;--edge:#d5dae3;--band:#f1f3f7"
DARK = "--paper:#12151b;--card:#1a1e26;--ink:#e4e8ef;--dim:#98a2b3;--edge:#343b48;--band:#181c23"


def _classes() -> list[str]:
    """Returns the rules that give each kind its colour."""
    return [
        *(f".k-{slug(kind)}{{--c:var(--k-{slug(kind)})}}" for kind in KERNELS),
        *(f".v-{kind.value}{{--c:var(--v-{kind.value})}}" for kind in VALUES),
    ]


PICTURE = "\n".join(
    [
        f".nt{{{variables(0)};font:11px {MONO};fill:var(--ink)}}",
        f"@media (prefers-color-scheme:dark){{.nt{{{variables(1)}}}}}",
        *_classes(),
        ".paper{fill:var(--paper)}",
        f".title{{font:600 17px {SANS}}} .facts,.note{{font:12px {SANS};fill:var(--dim)}}",
        f".number{{font:600 13px {SANS};fill:var(--dim);text-anchor:end}}",
        ".band{fill:var(--band)}",
        ".card{fill:var(--card);stroke:var(--edge)}",
        ".head{fill:var(--c);fill-opacity:.13}",
        ".mark{fill:var(--c)}",
        f".name{{font:600 12px {SANS};fill:var(--c);white-space:pre}}",
        f".costs{{font:11px {SANS};fill:var(--dim);text-anchor:end}}",
        ".pill{fill:var(--card);stroke:var(--c);stroke-width:1.2}",
        ".stored{fill:var(--c);fill-opacity:.16;stroke-width:1.8}",
        ".view{stroke-dasharray:3 2;stroke-opacity:.7} .parts{stroke-dasharray:6 2}",
        ".chip{fill:var(--c);fill-opacity:.12;stroke:var(--c);stroke-opacity:.45}",
        ".small{font-size:10px} .again{fill:var(--dim)}",
        ".edge{fill:none;stroke:var(--dim);stroke-opacity:.55}",
        ".lane path{fill:none;stroke:var(--c);stroke-width:1.4;stroke-opacity:.75}",
        ".lane circle,.lane .tip{fill:var(--c);stroke:none}",
        ".lane .wide{stroke:transparent;stroke-width:8}",
        ".lane:hover path,.lit path{stroke-width:3;stroke-opacity:1}",
        ".lane:hover .wide{stroke-width:8}",
        ".lit .chip,.lit .pill,.lit.room{stroke:var(--c);stroke-width:2.6;stroke-opacity:1}",
        "a:hover .card{stroke:var(--c);stroke-width:1.6}",
        ".here .card{stroke:var(--c);stroke-width:3}",
        ".room{fill:var(--c);fill-opacity:.22;stroke:var(--c);stroke-width:.6;stroke-opacity:.7}",
        ".thin{stroke:none;fill-opacity:.32} .odd{fill-opacity:.5}",
        ".room:hover{fill-opacity:.5}",
        ".axis{stroke:var(--edge)} .limit{stroke:var(--ink);stroke-dasharray:5 3}",
        ".right{text-anchor:end} .middle{text-anchor:middle} .dim{fill:var(--dim)}",
    ]
)  # fmt: skip
