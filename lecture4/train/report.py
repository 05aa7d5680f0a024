"""The report of a finished run: numbers, tables and figures in one self-contained report.html."""

import base64
import importlib.resources
import json
import logging
import math
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from lecture4.train import tables as table_text
from lecture4.train.metrics import Metric, check_metrics, find, name_of, primary
from lecture4.train.tables import Table, caption, text

__all__ = ['Figure', 'Report', 'Table', 'collect', 'text', 'title_of', 'write']

LOG = logging.getLogger(__name__)
DPI = 110
_TABLE_FIELDS = ('title', 'index', 'pivot', 'columns', 'caption', 'records')  # in results.json
LEARNING = 'learning'  # name of the figure of metrics.jsonl's curves
# Start of the part of a docstring that records results.
_RECORD = re.compile(r'^(Run|Hardware|Results)(:|\s{2,}|$)', re.MULTILINE)


class Figure(NamedTuple):
    """A matplotlib figure with a caption.

    Attributes:
      figure: One matplotlib.figure.Figure; or several of one size, in order of time, for an animation.
      caption: What the figure shows, a sentence.
    """

    figure: Any
    caption: str = ''

    @property
    def suffix(self) -> str:
        """Suffix of its file: 'png', or 'gif' for an animation."""
        return 'gif' if isinstance(self.figure, Sequence) else 'png'


class Report(NamedTuple):
    """An experiment's report on a final state; the first figure and table are the main ones.

    Attributes:
      metrics: Key -> value, of declared metrics; the primary one under exactly its name. Metrics of the tables'
        records are added and need not be repeated.
      tables: Tables of records.
      figures: Name -> Figure, saved as figures/NAME.png, animations as figures/NAME.gif.
      summary: One to three sentences at the top: the result.
    """

    metrics: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    tables: tuple[Table, ...] = ()
    figures: dict[str, Figure] = {}  # noqa: RUF012
    summary: str = ''


def collect(report: Report, metrics: Iterable[Metric]) -> dict[str, float]:
    """All metrics of a report: its own and those of its tables' records, as results.json has them.

    Raises:
      ValueError: The report and a table, or two tables, have different values for one key.
    """
    metrics = tuple(metrics)
    result = {key: float(value) for key, value in report.metrics.items()}
    for table in report.tables:
        for key, value in table_text.values(table, metrics).items():
            if not np.isclose(result.setdefault(key, value), value, equal_nan=True):
                raise ValueError(
                    f'{key} is {result[key]:g} in the report and {value:g} in table '
                    f'{table.title!r}; one key is one value'
                )
    return result


def title_of(about: str, name: str) -> str:
    """The title of an experiment: the first line of its docstring without what is in parentheses.

    Args:
      about: Its docstring.
      name: Its name, for one without a docstring.
    """
    subject, _, _ = _parts(about)
    title = re.sub(r'\s*\([^()]*\)\.?$', '', subject).rstrip('.')
    return title or name.replace('_', ' ').capitalize()


def write(
    directory: str | os.PathLike,
    report: Report,
    metrics: Sequence[Metric],
    *,
    title: str,
    about: str = '',
    records: Sequence[Mapping[str, Any]] = (),
):
    """Write results.json, figures/* and report.html into a run directory.

    results.json holds {'metrics': {key: value}, 'primary': name, 'declared': {name: {'unit', 'better',
    'label'}}, 'tables': [{'title', 'index', 'pivot', 'columns', 'caption', 'records'}]}, rates as fractions,
    draws as lists, null for what is not finite. A figure that cannot be drawn is named in the page and the log; the
    results and all other figures are written.

    Args:
      directory: The run directory.
      report: What the experiment reports.
      metrics: The experiment's declared metrics.
      title: Heading of the page.
      about: The experiment's docstring.
      records: Rows of metrics.jsonl, drawn as curves.

    Raises:
      ValueError: A metric is not declared, a fraction lies outside [0, 1], or the primary metric is
        missing.
    """
    directory = pathlib.Path(directory)
    values = collect(report, metrics)
    check_metrics(metrics, values, 'report')
    results = {
        'metrics': values,
        'primary': primary(metrics).name,
        'declared': {
            metric.name: {'unit': metric.unit, 'better': metric.better, 'label': metric.label}
            for metric in metrics
        },
        'tables': [
            {name: getattr(table, name) for name in _TABLE_FIELDS} for table in report.tables
        ],
    }
    _replace(directory / 'results.json', json.dumps(_plain(results), indent=2) + '\n')
    figures, failed = _draw(directory, report, records, metrics)
    page = _page(directory, report, figures, failed, values, tuple(metrics), title, about)
    _replace(directory / 'report.html', page)


def _draw(directory, report, records, metrics) -> tuple[dict[str, Figure], list[str]]:
    """Save the figures. Returns those that could be drawn, and a sentence about each of the others."""
    from lecture4.figures import animation, curves  # matplotlib takes a second to import

    folder = directory / 'figures'
    folder.mkdir(exist_ok=True)
    figures, failed = {}, []

    def save(name: str, make: Callable[[], Figure]) -> None:
        try:
            figure = make()
            path = folder / f'{name}.{figure.suffix}'
            if isinstance(figure.figure, Sequence):
                animation.save(figure.figure, path, dpi=DPI)
            else:
                figure.figure.savefig(path, dpi=DPI, metadata={'Software': None})
            figures[name] = figure
        except OSError:  # disk full
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            failed.append(f'Figure {name} could not be drawn: {reason}')
            LOG.error('%s', failed[-1], exc_info=error)

    for name, figure in report.figures.items():
        save(name, lambda figure=figure: figure)
    if drawn := _curves_of(records, metrics):
        labels = _declared_curves(metrics)
        save(LEARNING, lambda: Figure(curves.learning_curves(drawn, **labels)))
    return figures, failed


def _curves_of(records, metrics) -> list[dict[str, Any]]:
    """The rows reduced to metrics; an empty list where no row holds a number."""
    rows = [{k: v for k, v in row.items() if k != 'seconds'} for row in records]
    numbers = (v for row in rows for k, v in row.items() if k != 'step')
    return rows if any(isinstance(v, int | float) and math.isfinite(v) for v in numbers) else []


def _declared_curves(metrics) -> dict[str, Any]:
    return {
        'labels': {m.name: m.label if m.unit == 'fraction' else m.title for m in metrics},
        'percent': {m.name for m in metrics if m.unit == 'fraction'},
    }


def _plain(value: Any) -> Any:
    """JSON's types; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(np.asarray(value).tolist()) if hasattr(value, '__array__') else str(value)


def _replace(path: pathlib.Path, content: str):
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(content)
    os.replace(temporary, path)


def _page(directory, report, figures, failed, values, metrics, title, about) -> str:
    subject, explanation, record = _parts(about)
    title = title[:1].upper() + title[1:]
    if subject.startswith(
        title.partition(': sweep ')[0]
    ):  # the summary's words that the title repeats are dropped
        subject = subject[len(title.partition(': sweep ')[0]) :].strip().rstrip('.').strip('()')
    introduction = [f'<p class="subject">{escape(subject)}</p>'] if subject else []
    introduction += [f'<p>{escape(paragraph)}</p>' for paragraph in explanation]
    if report.summary:
        introduction.append(f'<p class="summary">{escape(report.summary)}</p>')
    introduction += [f'<p class="failed">{escape(sentence)}</p>' for sentence in failed]
    captions: set[str] = set()
    shown = [
        _figure(directory, name, figure, captions)
        for name, figure in figures.items()
        if name != LEARNING
    ]
    tables = [_table(table, metrics, captions) for table in report.tables]
    main = [*shown[:1], *tables, *shown[1:]]
    if LEARNING in figures:
        main.append('<h2>Metrics during training</h2>')
        main.append(_figure(directory, LEARNING, figures[LEARNING], captions))
    details = [_details('All metrics', _all_metrics(values, metrics))] if values else []
    if record:
        details.append(_details('Command, hardware and results', _pre(record)))
    for name in ('config.json', 'environment.json'):
        if (directory / name).exists():
            details.append(_details(name, _pre((directory / name).read_text())))
    template = importlib.resources.files('lecture4.train').joinpath('report.html').read_text()
    return string.Template(template).substitute(
        title=escape(title),
        introduction='\n'.join(introduction),
        main='\n'.join(main),
        details='\n'.join(details),
    )


def _parts(about: str) -> tuple[str, list[str], str]:
    """A docstring's subject line, its explaining paragraphs, and its record of results."""
    text, record = about.strip(), ''
    if match := _RECORD.search(text):
        text, record = text[: match.start()].strip(), text[match.start() :]
    subject, *paragraphs = re.split(r'\n\s*\n', text)
    return ' '.join(subject.split()), [' '.join(part.split()) for part in paragraphs], record


def _figure(directory, name: str, figure: Figure, captions: set[str]) -> str:
    file = f'figures/{name}.{figure.suffix}'
    data = base64.b64encode((directory / file).read_bytes()).decode()
    alt = escape(figure.caption or name.replace('_', ' '))
    first = figure.figure[0] if isinstance(figure.figure, Sequence) else figure.figure
    width, height = first.get_size_inches()
    size = ' class="wide"' if width > 1.8 * height else ''
    image = f'<img{size} alt="{alt}" src="data:image/{figure.suffix};base64,{data}">'
    below = _once(figure.caption, captions)
    below = f'<figcaption>{escape(below)}</figcaption>' if below else ''
    return f'<figure><a href="{escape(file)}">{image}</a>{below}</figure>'


def _table(table: Table, metrics, captions: set[str]) -> str:
    below = _once(caption(table, metrics), captions)
    below = f'<p class="caption">{escape(below)}</p>' if below else ''
    body = table_text.html(table, metrics)
    return f'<h2>{escape(table.title)}</h2><div class="scroll" tabindex="0">{body}</div>{below}'


def _once(words: str, captions: set[str]) -> str:
    """The caption, or '' if the page already has it."""
    if words in captions:
        return ''
    captions.add(words)
    return words


def _all_metrics(values, metrics) -> str:
    order = {metric.name: i for i, metric in enumerate(metrics)}
    keys = sorted(values, key=lambda key: order.get(name_of(key), len(order)))
    rows = []
    for key in keys:
        metric = find(metrics, key)
        shown = f'{(metric.scale if metric else 1) * values[key]:.5g}'
        rows.append({'metric': key, 'value': f'{shown} {metric.symbol if metric else ""}'.strip()})
    body = table_text.html(Table('', rows, ('metric',)))
    return f'<div class="scroll" tabindex="0">{body}</div>'


def _pre(content: str) -> str:
    return f'<pre>{escape(content.strip())}</pre>'


def _details(title: str, body: str) -> str:
    return f'<details><summary>{escape(title)}</summary>{body}</details>'
