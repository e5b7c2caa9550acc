"""Plots as SVG that lies inside a page and takes its colours from it: no fonts, no scripts. Knows no models."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABELS, WIDTH, ROW, FOOT = 190, 760, 26, 30  # pixels
HIGH = 170  # of a histogram


@dataclass(frozen=True)
class Row:
    """A line of `intervals`: a value with its interval, and values to beat."""

    label: str
    value: float
    low: float
    high: float
    others: Sequence[float]
    strong: bool = False


def intervals(rows: Sequence[Row], title: str) -> str:
    """A row a source: the value as a dot on its interval, the values to beat as other marks, on one scale from 0."""
    most = max(max(row.high, *row.others) for row in rows)
    scale = Scale(0.0, most * 1.05 or 1.0, LABELS, WIDTH - 16)
    height = ROW * len(rows) + FOOT
    lines = [_row(row, ROW * number + ROW / 2, scale) for number, row in enumerate(rows)]
    return _svg(WIDTH, height, title, _axis(scale, height - FOOT) + "".join(lines))


def histogram(edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], title: str) -> str:
    """Outlines of counts over the same bins, each scaled to its share of all; a series is its class and its counts."""
    scale = Scale(edges[0], edges[-1], 12, WIDTH / 2 - 12)
    shares = [(name, [count / (sum(counts) or 1) for count in counts]) for name, counts in series]
    top = max(max(values) for _, values in shares) or 1.0
    outlines = "".join(
        f'<path class="outline {name}" d="{_steps(edges, [value / top for value in values], scale)}"/>'
        for name, values in shares
    )
    return _svg(WIDTH // 2, HIGH + FOOT, title, _axis(scale, HIGH) + outlines)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` to pixels from `left` to `right`."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{self.left + share * (self.right - self.left):.1f}"

    @property
    def ticks(self) -> list[float]:
        """Round values, about five of them."""
        step = next(
            step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 10**9) if self.high - self.low <= 6 * step
        )
        first = -(-self.low // step)
        return [tick * step for tick in _range(first, self.high / step)]


def _range(first: float, last: float) -> list[float]:
    return [first + number for number in range(int(last - first) + 1)]


def _axis(scale: Scale, bottom: float) -> str:
    return "".join(
        f'<line class="grid" x1="{scale(tick)}" x2="{scale(tick)}" y1="0" y2="{bottom}"/>'
        f'<text class="tick" x="{scale(tick)}" y="{bottom + 18}">{tick:g}</text>'
        for tick in scale.ticks
    )


def _row(row: Row, y: float, scale: Scale) -> str:
    marks = "".join(_other(number, scale(value), y) for number, value in enumerate(row.others))
    return (
        f'<g class="row{" strong" if row.strong else ""}"><text class="label" x="{LABELS - 12}" y="{y + 4}">'
        f"{escape(row.label)}</text>{marks}"
        f'<line class="interval" x1="{scale(row.low)}" x2="{scale(row.high)}" y1="{y}" y2="{y}"/>'
        f'<circle class="model" cx="{scale(row.value)}" cy="{y}" r="5"/>'
        f"<title>{escape(row.label)}: {row.value:.1f} ({row.low:.1f} to {row.high:.1f})</title></g>"
    )


def _other(number: int, x: str, y: float) -> str:
    """A ring for the first value to beat, a bar for the second."""
    if number == 0:
        return f'<circle class="other" cx="{x}" cy="{y}" r="4"/>'
    return f'<line class="other" x1="{x}" x2="{x}" y1="{y - 6}" y2="{y + 6}"/>'


def _steps(edges: Sequence[float], heights: Sequence[float], scale: Scale) -> str:
    """The outline of bars whose heights are 0 to 1."""
    path = [f"M{scale(edges[0])},{HIGH}"]
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        y = f"{HIGH - height * (HIGH - 12):.1f}"
        path.append(f"L{scale(left)},{y} L{scale(right)},{y}")
    return " ".join([*path, f"L{scale(edges[-1])},{HIGH}"])


def _svg(width: float, height: float, title: str, content: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{content}</svg>'
