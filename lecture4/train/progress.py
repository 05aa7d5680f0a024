"""Progress as a bar on a terminal and as plain lines elsewhere; a heartbeat for launchers."""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from lecture4.train.config import RunOptions

Item = TypeVar('Item')
PLAIN_INTERVAL = 20.0  # seconds between plain lines of `track`
# Environment variable: the file to which the number of steps done is written, so that a launcher can detect a stalled
# process.
HEARTBEAT_FILE = 'LECTURE4_HEARTBEAT_FILE'
_last_heartbeat = [0.0]


def _text(values: Mapping[str, float]) -> str:
    return '  '.join(f'{name} {value:.4g}' for name, value in values.items())


def _resolve(style: str) -> str:
    if style == 'auto':
        return 'bar' if sys.stderr.isatty() else 'plain'
    return style


@contextlib.contextmanager
def display(
    style: str, start: int, steps: int, title: str
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Display the progress of a loop on stderr.

    Args:
      style: 'bar', 'plain', 'none', or 'auto': a bar on a terminal, plain lines elsewhere.
      start: Number of steps done before the loop.
      steps: Number of steps at the end of the loop.
      title: Label of the bar, or start of each line.

    Yields:
      A function (step, values) that updates the display.
    """
    style = _resolve(style)
    if style == 'none':
        yield lambda step, values: None
    elif style == 'plain':
        start_time = time.monotonic()

        def write_line(step: int, values: Mapping[str, float]) -> None:
            steps_per_second = (step - start) / max(time.monotonic() - start_time, 1e-9)
            text = f'{title} {step}/{steps}  {_text(values)}  ({steps_per_second:.1f}/s)'
            print(text, file=sys.stderr, flush=True)

        yield write_line
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


def track(config: RunOptions, items: Sequence[Item], title: str) -> Iterator[Item]:
    """Iterate over items and display progress, for slow loops of a report.

    Args:
      config: `config.progress` is the style of the display.
      items: What to iterate over.
      title: Label of the display.

    Yields:
      The items. Plain lines are at least PLAIN_INTERVAL seconds apart.
    """
    style, last_update = _resolve(config.progress), time.monotonic()
    with display(style, 0, len(items), title) as update:
        for n_done, item in enumerate(items, 1):
            yield item
            if style == 'bar' or time.monotonic() - last_update >= PLAIN_INTERVAL:
                last_update = time.monotonic()
                update(n_done, {})


def heartbeat(step: int | None) -> None:
    """Write the number of steps done to the launcher's heartbeat file, if there is one.

    Args:
      step: Number of steps done, written at most ten times per second; None when the loop has ended.
    """
    path = os.environ.get(HEARTBEAT_FILE)
    if not path:
        return
    now = time.monotonic()
    if step is None or now - _last_heartbeat[0] > 0.1:
        _last_heartbeat[0] = now
        pathlib.Path(path).write_text('done' if step is None else str(step))
