"""What a console shows while something runs: on a terminal, in a notebook, and elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.highlighter import NullHighlighter
from rich.live import Live

from optevo.escaping import spelled

if TYPE_CHECKING:
    from rich.text import Text


class AnyTextConsole(Console):
    """Escapes, before it is laid out, whatever the stream can't say or a terminal might obey."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich."""
        return super().render_str(spelled(text, self.encoding), **options)


def make_console() -> Console:
    """As wide as COLUMNS says, else as the terminal; elsewhere lines stay whole, and tables are wide."""
    fits = os.environ.get("COLUMNS", "").isdecimal() or (sys.stdout is not None and sys.stdout.isatty())
    # Names and messages are not ours to interpret: no markup.
    console = AnyTextConsole(markup=False, emoji=False, soft_wrap=not fits, width=None if fits else 160)
    if console.is_jupyter:  # rich's colours are those of a white page, and a notebook's may be black
        console.highlighter = NullHighlighter()
    return console


@contextlib.contextmanager
def live(console: Console, first: RenderableType) -> Iterator[Callable[[RenderableType], None]]:
    """Something that changes in its place, on a terminal or in a notebook; yields what shows its new state.

    Rich needs ipywidgets for that in a notebook; what it draws can be updated there without them.
    """
    if console.is_jupyter:
        from IPython.display import display  # noqa: PLC0415  a notebook has it

        handle = display(first, display_id=True)
        yield handle.update
        return
    with Live(first, console=console, auto_refresh=False) as shown:
        yield lambda renderable: shown.update(renderable, refresh=True)
