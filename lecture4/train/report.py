"""What a finished run says: numbers, tables and figures, in one self-contained report.html."""

import base64
import html
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; }
figcaption, .caption { color: #555; font-size: .92rem; max-width: 48rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; color: #555; }
"""


class Table(NamedTuple):
    """A table: rows of text or numbers, as many to a row as there are columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ''


class Picture(NamedTuple):
    """A figure with the sentence that says what to see in it."""

    figure: 'Figure'
    caption: str = ''


class Report(NamedTuple):
    """What an experiment reports of a final state.

    metrics   numbers that a sweep's table collects
    tables    ours beside the published ones
    pictures  name -> Picture; saved as figures/NAME.png
    summary   a few sentences on top: what was found
    """

    metrics: dict[str, float] = {}  # noqa: RUF012 (never changed)
    tables: tuple[Table, ...] = ()
    pictures: dict[str, Picture] = {}  # noqa: RUF012
    summary: str = ''


def write(directory, report: Report, *, title: str, about: str = '', rows=()):
    """Write results.json, figures/*.png and report.html into a run directory.

    rows   metrics.jsonl's rows, drawn as curves.
    about  the experiment's docstring.
    """
    from lecture4.figures import curves  # matplotlib takes a second to import

    directory = pathlib.Path(directory)
    pictures = dict(report.pictures)
    if rows:
        metrics = [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]
        pictures['learning'] = Picture(curves.learning(metrics), 'Metrics during training.')
    figures = directory / 'figures'
    figures.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.figure.savefig(figures / f'{name}.png', dpi=110, metadata={'Software': None})
    results = {'metrics': report.metrics, 'tables': [table._asdict() for table in report.tables]}
    _replace(directory / 'results.json', json.dumps(results, indent=2, default=float) + '\n')
    _replace(directory / 'report.html', _page(directory, report, pictures, title, about))


def _replace(path: pathlib.Path, text: str):
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)


def _page(directory, report, pictures, title, about) -> str:
    parts = [f'<h1>{html.escape(title)}</h1>']
    if report.summary:
        parts.append(f'<p>{html.escape(report.summary)}</p>')
    parts += [_table(table) for table in report.tables]
    for name, picture in pictures.items():
        data = base64.b64encode((directory / 'figures' / f'{name}.png').read_bytes()).decode()
        caption = html.escape(picture.caption)
        parts.append(
            f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{data}">'
            f'<figcaption>{caption}</figcaption></figure>'
        )
    if about:
        parts.append(f'<h2>About</h2><pre>{html.escape(about.strip())}</pre>')
    for name in ('config.json', 'environment.json'):
        if (directory / name).exists():
            text = html.escape((directory / name).read_text())
            parts.append(f'<details><summary>{name}</summary><pre>{text}</pre></details>')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f'</title><style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'
    )


def _table(table: Table) -> str:
    head = ''.join(f'<th>{html.escape(str(column))}</th>' for column in table.columns)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(_cell(cell))}</td>' for cell in row) + '</tr>'
        for row in table.rows
    )
    return (
        f'<h2>{html.escape(table.title)}</h2><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table><p class="caption">{html.escape(table.caption)}</p>'
    )


def text(table: Table) -> str:
    """The table as aligned plain text, for the end of a run on a terminal."""
    cells = [[str(column) for column in table.columns]]
    cells += [[_cell(cell) for cell in row] for row in table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [table.title]
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        aligned = [first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in others]
        lines.append('  ' + '  '.join(aligned))
    return '\n'.join(lines)


def mean_and_error(values) -> str:
    """'93.1 ± 0.4': mean and standard error of the mean over draws [n]; one draw has no error."""
    values = np.asarray(values)
    if values.size < 2:
        return f'{values.mean():.1f}'
    return f'{values.mean():.1f} ± {values.std(ddof=1) / values.size**0.5:.1f}'


def _cell(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
