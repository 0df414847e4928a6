"""Tables as the book styles them, and numbers as they stand in them."""

import statistics
from collections.abc import Sequence
from html import escape


def html_table(head: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """A table as HTML. The comments let notebook tests compare the repr instead."""
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *rest in body:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return (
        '<!--mc-explorer--><div class="mc-table" tabindex="0" role="region"'
        f' aria-label="{escape(caption)}"><table class="mc-scoreboard">'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div><!--/mc-explorer-->"
    )


def percent(share: float, digits: int = 1) -> str:
    """A fraction in per cent, such as 98.4 %, with a narrow space that does not break."""
    return f"{100 * share:.{digits}f}\u202f%"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample) over pairs; one value deviates by zero."""
    if not len(values):
        raise ValueError("there are no values; a mean needs at least one")
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def span(values: Sequence[float]) -> str:
    """Fractions from the lowest to the highest, and their mean, in per cent."""
    if not len(values):
        raise ValueError("there are no values; a span needs at least one")
    low, high, mean = map(percent, (min(values), max(values), statistics.mean(values)))
    return f"{low} to {high}, mean {mean}"
