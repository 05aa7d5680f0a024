"""Progress on a terminal as a bar, elsewhere as plain lines."""

import contextlib
import sys
import time


def _text(values: dict) -> str:
    return '  '.join(f'{name} {value:.4g}' for name, value in values.items())


@contextlib.contextmanager
def shown(style: str, start: int, steps: int, title: str):
    """Yields a function (step, values) that shows how far a run has come.

    style  auto | bar | plain | none; auto is a bar where stderr is a terminal, else plain lines.
    """
    if style == 'auto':
        style = 'bar' if sys.stderr.isatty() else 'plain'
    if style == 'none':
        yield lambda step, values: None
    elif style == 'plain':
        began = time.monotonic()

        def line(step, values):
            rate = (step - start) / max(time.monotonic() - began, 1e-9)
            text = f'{title} {step}/{steps}  {_text(values)}  ({rate:.1f} steps/s)'
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
