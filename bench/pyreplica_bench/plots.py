"""Bar charts as SVG, small enough to read in a diff, and readable on light and dark pages."""

import math
from html import escape

from .samples import figure

WIDTH, LABELS, FIGURES = 720, 190, 90
BAR, GAP, HEAD = 18, 6, 30

STYLE = """
text { font: 13px sans-serif; fill: #24292f }
.title { font-weight: bold }
.axis { fill: #6e7781; font-size: 12px }
.ours { fill: #2f81d6 }
.other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .axis { fill: #8b949e }
  .other { fill: #57606a }
}
"""


def bars(charts):
    """One picture of several charts below each other: (title, [(label, value, is ours)], is logarithmic)."""
    parts, top = [], 0
    for title, rows, logarithmic in charts:
        rows = [row for row in rows if row[1] is not None]
        if not rows:
            continue
        parts.append(f'<text class="title" x="0" y="{top + 18}">{escape(title)}</text>')
        top += HEAD
        lengths = scaled([value for _, value, _ in rows], logarithmic)
        for (label, value, ours), length in zip(rows, lengths):
            parts.append(row(label, value, ours, length, top))
            top += BAR + GAP
        top += GAP * 2
    if not parts:
        return None
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">\n'
            f"<style>{STYLE}</style>\n{body}\n</svg>\n")


def row(label, value, ours, length, top):
    baseline = top + BAR - 4
    return (f'<text x="{LABELS - 8}" y="{baseline}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="{"ours" if ours else "other"}" x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR}"/>'
            f'<text class="axis" x="{LABELS + length + 6:.1f}" y="{baseline}">{figure(value)}</text>')


def scaled(values, logarithmic):
    """Lengths in pixels. A logarithmic bar begins a decade below the smallest value, so that it has a length."""
    room = WIDTH - LABELS - FIGURES
    positive = [value for value in values if value > 0]
    if not positive:
        return [0] * len(values)
    if not logarithmic:
        return [max(0, value) / max(positive) * room for value in values]
    low = math.floor(math.log10(min(positive)))
    span = max(math.log10(max(positive)) - low, 0.1)
    return [max(0, math.log10(max(value, 10 ** low)) - low) / span * room for value in values]
