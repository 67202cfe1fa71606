"""A plot on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 120
RED, BLUE, GREY, BLACK = "#c8102e", "#1f6f8b", "#7a7a7a", "#333333"


class Figure:
    """A figure that is written and closed at the end of its block, without a display."""

    def __init__(self, path: Path, inches: tuple[float, float], columns: int = 1) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing

        self._path = path
        self._figure = Drawing(figsize=inches, layout="constrained")
        FigureCanvasAgg(self._figure)
        self._axes = self._figure.subplots(1, columns, squeeze=False)[0]

    def __enter__(self) -> list[Axes]:
        for axes in self._axes:
            axes.grid(visible=True, alpha=0.3)
            axes.set_axisbelow(True)
        return list(self._axes)

    def __exit__(self, *_: object) -> None:
        # Without its own version in the file, equal figures are equal bytes.
        self._figure.savefig(self._path, dpi=DPI, metadata={"Software": None})
