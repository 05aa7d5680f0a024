"""Progress on a terminal as a bar, elsewhere as plain lines; and a pulse for a launcher."""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

PLAIN_INTERVAL = 20.0
# Environment variable that names a file for the number of steps done, by which a launcher sees a stuck process.
HEARTBEAT_FILE = 'LECTURE4_HEARTBEAT_FILE'
_last_heartbeat = [0.0]


def _text(values: dict) -> str:
    return '  '.join(f'{name} {value:.4g}' for name, value in values.items())


def _of_here(style):
    if style == 'auto':
        return 'bar' if sys.stderr.isatty() else 'plain'
    return style


@contextlib.contextmanager
def display(style: str, start: int, steps: int, title: str):
    """Yields a function (step, values) that shows how far a run has come.

    style  auto | bar | plain | none; auto is a bar where stderr is a terminal, else plain lines.
    """
    style = _of_here(style)
    if style == 'none':
        yield lambda step, values: None
    elif style == 'plain':
        began = time.monotonic()

        def line(step, values):
            rate = (step - start) / max(time.monotonic() - began, 1e-9)
            text = f'{title} {step}/{steps}  {_text(values)}  ({rate:.1f} a second)'
            print(text, file=sys.stderr, flush=True)

        yield line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            Remaining(),
            TextColumn('{task.fields[values]}'),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=steps, completed=start, values='')
            yield lambda step, values: bar.update(task, completed=step, values=_text(values))


def track(config, items: Sequence, title: str) -> Iterator:
    """The items, while how many of them are done with is shown as config.progress says.

    For what takes long in a report. Plain lines come every PLAIN_INTERVAL seconds.
    """
    style, told = _of_here(config.progress), time.monotonic()
    with display(style, 0, len(items), title) as show:
        for done, item in enumerate(items, 1):
            yield item
            if style == 'bar' or time.monotonic() - told >= PLAIN_INTERVAL:
                told = time.monotonic()
                show(done, {})


def heartbeat(step: int | None):
    """Tell a launcher how many steps are done, at most ten times a second; None: the loop ended."""
    path = os.environ.get(HEARTBEAT_FILE)
    if not path:
        return
    now = time.monotonic()
    if step is None or now - _last_heartbeat[0] > 0.1:
        _last_heartbeat[0] = now
        pathlib.Path(path).write_text('done' if step is None else str(step))
