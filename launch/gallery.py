"""Write the table of results in experiments/README.md from finished runs, one row each.

    python -m launch.gallery runs/*
    python -m launch.gallery runs/self_taught runs/ica --page experiments/README.md
    python -m launch.gallery runs/* --dry_run

The table stands between <!-- gallery --> and <!-- /gallery -->; everything in it is read from the runs:
the command and the time of training, the primary metric of results.json, and the published value next to it in the
experiment's tables. Thumbnails are small PNGs in gallery/ next to the page, for runs on built-in sets only; for runs
on photographs only figures of learned atoms or filters, or curves. The whole table is replaced: give all runs that it
should show.
"""

import dataclasses
import html
import io
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from launch import command, runs

BEGIN, END = '<!-- gallery -->', '<!-- /gallery -->'
PAGE = 'experiments/README.md'
WIDTH = 160  # pixels of a thumbnail
# Of the options that say how a run is carried out, these are part of the command to repeat it.
SHOWN = ('preset', 'sweep', 'grid', 'seeds')
# Sets that are generated or come with packages; 'photos' and 'textures' are photographs by others.
DRAWN = ('digits', 'docstrings', 'scenes', 'circle', 'spiral')
PHOTOGRAPHS = ('photos', 'textures')
# Figures without images of a set: learned filters, and curves.
NO_IMAGES = ('atoms', 'bases', 'dictionary', 'filters', 'components', 'precision_recall', 'recall')
HEAD = ('experiment', 'command', 'training', 'metric', 'ours', 'published', '')


def main(argv: list[str]) -> int:
    """Parse the options, and write or print the table.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: A directory contains no finished run, or the page lacks the two markers.
    """
    parser = command.parser('launch.gallery', __doc__ or '')
    add = parser.add_argument
    add('runs', nargs='+', help='Directories of finished runs.', metavar='RUN')
    add('--page', default=PAGE, help='Page with the markers. Default: %(default)s.')
    options = parser.parse_args(argv)
    page = pathlib.Path(options.page)
    finished = [runs.read(path) for path in options.runs]
    for run in finished:
        if not run.results:
            raise command.LaunchError(f'{run.directory} has no results.json; finish the run first')
    finished.sort(key=lambda run: (run.module, shown_command(run)))
    images = {run.directory: thumbnail(run) for run in finished}
    text = table(
        finished, {run.directory: file_name(run) for run in finished if images[run.directory]}
    )
    if options.dry_run:
        print(text)
        return 0
    replace(page, text)
    folder = page.parent / 'gallery'
    folder.mkdir(exist_ok=True)
    for run in finished:
        if content := images[run.directory]:
            (folder / file_name(run)).write_bytes(content)
    print(f'{len(finished)} runs in {page}', file=sys.stderr)
    return 0


def table(finished: Sequence[runs.Run], thumbnails: dict[pathlib.Path, str]) -> str:
    """The Markdown table of runs.

    Args:
      finished: Finished runs.
      thumbnails: Run directory -> file in gallery/, for runs that have one.
    """
    rows = [HEAD, ('---',) * len(HEAD)]
    for run in finished:
        label, ours, published = result(run)
        image = ''
        if name := thumbnails.get(run.directory):
            image = f'<img src="gallery/{html.escape(name)}" width="{WIDTH // 2}" alt="">'
        cells = (
            name_of(run),
            f'`{shown_command(run)}`',
            duration(run.seconds),
            label,
            ours,
            published,
        )
        rows.append((*(cell.replace('|', r'\|') for cell in cells), image))
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def name_of(run: runs.Run) -> str:
    """The experiment's module without its package: 'autoencoders.deep'."""
    return run.module.removeprefix('experiments.') or run.directory.name


def shown_command(run: runs.Run) -> str:
    """The command of a run without the options that do not affect results."""
    from lecture4.train import RunOptions

    left_out = {field.name for field in dataclasses.fields(RunOptions)} - {*SHOWN}
    words = run.environment.get('command', '').split()
    shown: list[str] = []
    skip = False
    for word in words:
        if word.startswith('--'):
            skip = word[2:].partition('=')[0].replace('-', '_') in left_out
        if not skip:
            shown.append(word)
        skip = skip and '=' not in word
    return 'python ' + shlex.join(shown)


def duration(seconds: float) -> str:
    """Seconds as '35 s', '12 min' or '3.4 h'."""
    if seconds < 99.5:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 99.5 * 60 else f'{seconds / 3600:.1f} h'


def result(run: runs.Run) -> tuple[str, str, str]:
    """The primary metric: (label, our value, the published value or a dash), as tables print them."""
    from lecture4.train.cells import MISSING, format_value, published
    from lecture4.train.metrics import Metric, find

    declared: list[Metric] = runs.declared(run)
    metric = next(metric for metric in declared if metric.primary)
    ours = run.results['metrics'].get(metric.name)
    if ours is None:
        return metric.label, MISSING, MISSING
    shown = format_value(ours, metric)
    for made in run.results['tables']:
        for record in made['records']:
            values = [
                v for key, v in record.items() if find(declared, key) and _mean(v) is not None
            ]
            given = {k: v for k, v in record.items() if k.startswith('published') and v is not None}
            if given and any(_close(_mean(value), ours) for value in values):
                value = next(iter(given.values()))
                text = published([value], metric)[0]
                is_text = isinstance(value, str)
                return metric.label, shown, text if is_text else f'{text} {metric.symbol}'.rstrip()
    return metric.label, shown, MISSING


def _mean(value: Any) -> float | None:
    """A number, or the mean of a list of numbers; None for anything else."""
    numbers = value if isinstance(value, list) else [value]
    known = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    return sum(numbers) / len(numbers) if numbers and known else None


def _close(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) <= 1e-6 * max(abs(a), abs(b))


def thumbnail(run: runs.Run) -> bytes:
    """A small PNG of the first figure that may be shown; empty if there is none.

    The run's data set decides: all figures for generated sets; figures of learned filters and curves for
    photographs, which are also the background of scenes with boxes; none for sets that were downloaded or belong to
    the user.
    """
    from PIL import Image

    sources = [value for name, value in run.config.items() if name.endswith('source') and value]
    figures = re.findall(r'href="figures/([^"/]+)\.png"', _page(run))
    if not all(source in DRAWN for source in sources) or '.detection.' in run.module:
        if not all(source in (*DRAWN, *PHOTOGRAPHS) for source in sources):
            return b''
        figures = [name for name in figures if name.startswith(NO_IMAGES)]
    figures = [name for name in figures if name != 'learning']
    if not figures:
        return b''
    with Image.open(run.directory / 'figures' / f'{figures[0]}.png') as image:
        image = image.convert('RGB')
        image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.quantize(64).save(stream, 'PNG', optimize=True)
    return stream.getvalue()


def _page(run: runs.Run) -> str:
    try:
        return (run.directory / 'report.html').read_text()
    except OSError:
        return ''


def file_name(run: runs.Run) -> str:
    """The file name of a run's thumbnail: the experiment and the options of its command."""
    words = shown_command(run).split()[3:]
    return (
        re.sub(r'[^\w.=-]+', '_', '-'.join([name_of(run), *(w.strip('-') for w in words)])) + '.png'
    )


def replace(page: pathlib.Path, text: str) -> None:
    """Replace the text between the markers of a page.

    Raises:
      LaunchError: The page cannot be read, or does not have each marker once, in order.
    """
    try:
        content = page.read_text()
    except OSError as error:
        raise command.LaunchError(f'cannot read {page}: {error.strerror}; choose --page') from None
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise command.LaunchError(
            f'{page} has no {BEGIN} and {END}; put them where the table should be'
        )
    temporary = page.with_name(page.name + '.tmp')
    temporary.write_text(f'{before}{BEGIN}\n{text}\n{END}{after}')
    os.replace(temporary, page)


if __name__ == '__main__':
    command.main('launch.gallery', main)
