"""What comes out of a run: numbers made of samples, tables, and a drawing."""

import json
import platform
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

# One colour a contestant, in the order in which they are first seen; bolide's stands out.
COLOURS = ["#8d99ae", "#457b9d", "#2a9d8f", "#e9c46a", "#f4a261", "#9b5de5", "#6d6875", "#b5838d"]
OURS = "#d62828"


def ratio(samples: Sequence[float], base: Sequence[float]) -> float | None:
    """How `samples` compare with `base`, round by round, so that a machine that drifts cancels out: the median."""
    pairs = [ours / theirs for ours, theirs in zip(samples, base, strict=False) if theirs > 0]
    return statistics.median(pairs) if pairs else None


def figure(value: float | None) -> str:
    """A number with three significant digits."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def thousands(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with blanks: the first to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = str(row[0]).ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(header) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def conditions(version: tuple[int, int]) -> dict:
    """Where and when a run took place."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "when": datetime.now().astimezone().isoformat(timespec="minutes"),
        "python": f"{version[0]}.{version[1]}",
        "kernel": platform.release(),
        "cpu": model,
    }


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def bar_chart(title: str, rows: dict[str, dict[str, float]], unit: str, relative_to: str) -> str:
    """An SVG with a group of bars for each row: `rows[row][contestant]`, each row drawn relative to one contestant.

    A row without that contestant is left out. The figure itself stands at the end of its bar.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    peers = [name for name in names if name != "bolide"]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(peers)} | {"bolide": OURS}
    drawn = {row: values for row, values in rows.items() if values.get(relative_to)}
    left, bar, gap, scale, top = 240, 14, 16, 260, 64
    parts, y = [], top
    for row, values in drawn.items():
        parts.append(f'<text x="{left - 10}" y="{y + len(values) * bar / 2 + 4}" class="row">{escape(row)}</text>')
        for name, value in values.items():
            share = value / values[relative_to]
            width = max(1.0, min(share, 2.2) * scale)
            label = f"{figure(value)}" + (f" ({share:.2f})" if name != relative_to else "")
            parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{bar - 2}" fill="{colours[name]}"/>')
            parts.append(f'<text x="{left + width + 5:.1f}" y="{y + bar - 4}" class="value">{label}</text>')
            y += bar
        y += gap
    legend, x = [], left
    for name in names:
        legend.append(f'<rect x="{x}" y="42" width="10" height="10" fill="{colours[name]}"/>')
        legend.append(f'<text x="{x + 14}" y="51" class="value">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    width, height = left + int(2.2 * scale) + 100, y + 10
    note = f"{unit}, less is better; in brackets: relative to {relative_to}"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        "<style>.row{font-size:12px;text-anchor:end}.value{font-size:11px;fill:#333}</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="15">{escape(title)}</text>',
        f'<text x="{left}" y="33" class="value">{escape(note)}</text>',
    ]
    return "\n".join([*head, *legend, *parts, "</svg>", ""])
