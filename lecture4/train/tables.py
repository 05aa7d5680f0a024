"""Tables from records: formatting, and entries of results.json, both by the declared metrics."""

import dataclasses
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from lecture4.train.cells import is_number, numbers, plain, published
from lecture4.train.metrics import Metric, find, title_of

PUBLISHED = 'published'
HEAD_WIDTH = 20  # characters at which a heading in text is broken


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of records: one row for each record, or with a pivot one for each value of `index`.

    Entries whose key is a declared metric (`test_accuracy`, `recall/cat`) are formatted by its unit and label:
    fractions as percent, equal decimals in a column, 1-d arrays of samples as mean ± standard error. Each of them
    also goes into results.json, as `key/value of index.../value of pivot`, averaged over samples. Numbers under a
    name that begins with 'published' have the scale of the metric in the column before (a fraction is 0.0114, printed
    1.14) and keep their own digits; text under such a name and all other entries are printed unchanged. An entry that
    a record lacks, or None, is printed as a dash; an entry that is None in all records is not printed.

    Attributes:
      title: Heading.
      records: Dicts such as {'method': 'PCA', 'labels_per_class': 5, 'test_accuracy': draws [n]}.
      index: Names of the entries that name a row: ('method',).
      columns: Entries to print, in this order; if empty, all except index and pivot.
      caption: What is measured, how, and what the table shows; a note about ± is added.
      pivot: Entry whose values become columns ('1 label per class', '5 labels per class'). Records
        without it fill columns of their own.
      spread: Meaning of the number after ±: 'standard error' of the mean or 'standard deviation'.
      in_results: Whether the records' metrics go into results.json's metrics.
      link: Entry with a URL, to which the first cell of a row links in HTML; it is not printed.

    Raises:
      ValueError: A record lacks an entry of `index`, or `columns` or `pivot` is in no record.
    """

    title: str
    records: Sequence[dict[str, Any]]
    index: tuple[str, ...]
    columns: tuple[str, ...] = ()
    caption: str = ''
    pivot: str = ''
    spread: str = 'standard error'
    in_results: bool = True
    link: str = ''

    def __post_init__(self):
        for record in self.records:
            if lacking := [name for name in self.index if name not in record]:
                raise ValueError(
                    f'table {self.title!r}: a record has no {lacking[0]!r}, which names its row; '
                    f'it has {", ".join(record)}'
                )
        names = {name for record in self.records for name in record}
        for name in (*self.columns, *filter(None, [self.pivot])):
            if names and name not in names:
                raise ValueError(
                    f'table {self.title!r}: no record has {name!r}; there are: '
                    f'{", ".join(sorted(names))}'
                )
        if self.spread not in ('standard error', 'standard deviation'):
            raise ValueError(
                f'table {self.title!r}: spread is {self.spread!r}, expected '
                "'standard error' or 'standard deviation'"
            )


def label_table(
    curves: Mapping[str, Any],
    labels_per_class: Sequence[int],
    *,
    title: str = 'Accuracy against labels',
    index: str = 'features',
    caption: str = '',
) -> Table:
    """A table of samples of `accuracy`, one row per curve and one column per number of labels.

    Args:
      curves: Name -> samples for each number of labels.
      labels_per_class: The numbers of labels.
      title: Heading.
      index: Heading of the column of names.
      caption: As in `Table`.

    Raises:
      ValueError: A curve does not have samples for each number of labels.
    """
    records = [
        {index: name, 'labels_per_class': n, 'accuracy': draws}
        for name, curve in curves.items()
        for n, draws in zip(labels_per_class, curve, strict=True)
    ]
    return Table(title, records, (index,), caption=caption, pivot='labels_per_class')


class Column(NamedTuple):
    """A printed column.

    Attributes:
      group: Heading above the titles of several columns: the metric whose columns are the values of a pivot.
      title: Heading of the column.
      cells: A string for each row.
      is_number: Whether cells are aligned to the right.
    """

    group: str
    title: str
    cells: list[str]
    is_number: bool


def layout(table: Table, declared: Iterable[Metric]) -> list[Column]:
    """The printed columns of a table, the columns of its index first.

    Raises:
      ValueError: Two records have the same values of index and pivot, where there is a pivot.
    """
    declared = tuple(declared)
    rows = _rows(table)
    columns = []
    for name in table.index:
        values = [next(iter(row.values()))[name] for row in rows]
        columns.append(Column('', words(name), *plain(values)))
    # The fullest record decides the order; others may lack entries.
    fullest = sorted(table.records, key=len, reverse=True)
    names = dict.fromkeys(name for record in fullest for name in record)
    entries = table.columns or [
        n for n in names if n not in (*table.index, table.pivot, table.link)
    ]
    metric = None
    for name in entries:
        if not name.startswith(PUBLISHED):
            metric = find(declared, name)
        if all(record.get(name) is None for record in table.records):
            continue
        pivots = [p for p in _pivots(table) if any(name in row.get(p, {}) for row in rows)]
        if metric is None or name.startswith(PUBLISHED):
            pivots = _constant(rows, name, pivots)
        for pivot in pivots:
            values = [_value(row, pivot, name) for row in rows]
            if metric is None:
                columns.append(_titled(table, pivot, words(name), *plain(values)))
            elif name.startswith(PUBLISHED):
                has_number = any(is_number(value) for value in values)
                note = f' ({metric.symbol})' if has_number and metric.symbol else ''
                cells = published(values, metric)
                columns.append(_titled(table, pivot, words(name) + note, cells, True))
            else:
                title = title_of(declared, name)
                cells = numbers(values, metric, table.spread)
                columns.append(_titled(table, pivot, title, cells, True))
    return columns


def caption(table: Table, declared: Iterable[Metric]) -> str:
    """The table's caption, with the meaning of ± where the table prints one."""
    counts = set()
    for record in table.records:
        for name, value in record.items():
            if find(declared, name) is not None and np.ndim(value) == 1 and np.size(value) > 1:
                counts.add(np.size(value))
    if not counts:
        return table.caption
    n = '-'.join(str(count) for count in dict.fromkeys((min(counts), max(counts))))
    return ' '.join(filter(None, [f'Mean ± {table.spread} (n = {n}).', table.caption]))


def values(table: Table, declared: Iterable[Metric]) -> dict[str, float]:
    """Every declared metric of the records: key -> mean over samples, on the stored scale.

    Raises:
      ValueError: Two records have different values for one key.
    """
    declared, result = tuple(declared), {}
    for record in table.records if table.in_results else ():
        names = [name for name in (*table.index, table.pivot) if name in record]
        qualifiers = [qualifier(record[name]) for name in names]
        for name, value in record.items():
            known = name not in names and find(declared, name) is not None
            if not known or value is None or isinstance(value, str) or not np.size(value):
                continue
            key = '/'.join([name, *qualifiers])
            mean = float(np.mean(np.asarray(value, float)))
            if not np.array_equal(result.setdefault(key, mean), mean, equal_nan=True):
                raise ValueError(
                    f'table {table.title!r}: two records have different values of {key}, {result[key]:g} and {mean:g}; '
                    'add the entry that distinguishes them to index or pivot'
                )
    return result


def text(table: Table, declared: Iterable[Metric] = (), width: int | None = None) -> str:
    """The table as aligned plain text, with at most `width` characters per line (None: no limit)."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    declared = tuple(declared)
    columns = layout(table, declared)
    groups = {column.group for column in columns if column.group}
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        above = [column.group] if len(groups) > 1 and column.group else []
        head_width = max([HEAD_WIDTH, *map(len, column.cells)])
        head = [
            line for title in (*above, column.title) for line in textwrap.wrap(title, head_width)
        ]
        justify = 'right' if column.is_number else 'left'
        grid.add_column(Text('\n'.join(head)), justify=justify, vertical='bottom')
    for cells in zip(*(column.cells for column in columns), strict=True):
        grid.add_row(*map(Text, cells))
    stream = io.StringIO()
    console = Console(file=stream, width=width or 1000, color_system=None, highlight=False)
    console.print(grid)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    title = ': '.join([table.title, *groups]) if len(groups) == 1 else table.title
    used = min(max(80, *map(len, lines)), 100) if width is None else width
    return '\n'.join([title, *lines, *textwrap.wrap(caption(table, declared), used)])


def html(table: Table, declared: Iterable[Metric] = ()) -> str:
    """The table as a <table> element, its columns under two rows of headings where it has groups."""
    columns = layout(table, declared)
    grouped = any(column.group for column in columns)
    first, second = [], []
    for i, column in enumerate(columns):
        side = '' if column.is_number else ' class="text"'
        if not column.group:
            span = ' rowspan="2"' if grouped else ''
            first.append(f'<th scope="col"{side}{span}>{escape(column.title)}</th>')
            continue
        second.append(f'<th scope="col"{side}>{escape(column.title)}</th>')
        if i == 0 or columns[i - 1].group != column.group:
            n = sum(other.group == column.group for other in columns)
            first.append(f'<th scope="colgroup" colspan="{n}">{escape(column.group)}</th>')
    head = ''.join(f'<tr>{"".join(row)}</tr>' for row in (first, second) if row)
    body = []
    links = [next(iter(row.values())).get(table.link) for row in _rows(table)]
    for link, *row in zip(links, *(column.cells for column in columns), strict=True):
        cells = []
        for i, (column, cell) in enumerate(zip(columns, row, strict=True)):
            side = '' if column.is_number else ' class="text"'
            tag = 'th scope="row"' if i < len(table.index) else 'td'
            shown = escape(cell)
            if i == 0 and link:
                shown = f'<a href="{escape(link)}">{shown}</a>'
            cells.append(f'<{tag}{side}>{shown}</{tag[:2]}>')
        body.append(f'<tr>{"".join(cells)}</tr>')
    return f'<table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table>'


_WHOLE_ROW = object()  # stands for the pivot's value in records without the pivot


def _rows(table: Table) -> list[dict[Any, dict[str, Any]]]:
    """For each printed row the records that fill it: value of the pivot -> record."""
    if not table.pivot:
        return [{_WHOLE_ROW: record} for record in table.records]
    rows: dict[tuple, dict] = {}
    for record in table.records:
        row = rows.setdefault(tuple(str(record[name]) for name in table.index), {})
        at = record.get(table.pivot, _WHOLE_ROW)
        if at in row:
            named = ', '.join(f'{name}={record[name]}' for name in table.index)
            raise ValueError(f'table {table.title!r}: two records of {named}, {table.pivot}={at}')
        row[at] = record
    return list(rows.values())


def _pivots(table: Table) -> list[Any]:
    """The pivot's values in order of appearance; last the marker for the whole row."""
    pivots = (record[table.pivot] for record in table.records if table.pivot in record)
    return [*dict.fromkeys(pivots), _WHOLE_ROW] if table.pivot else [_WHOLE_ROW]


def _constant(rows, name: str, pivots: list[Any]) -> list[Any]:
    """One column for an entry that never varies within a row, otherwise the pivot's."""
    for row in rows:
        if len({repr(record[name]) for record in row.values() if name in record}) > 1:
            return pivots
    return [None] if len(pivots) > 1 else pivots


def _value(row, pivot: Any, name: str) -> Any:
    if pivot is None:
        return next((record[name] for record in row.values() if name in record), None)
    return row.get(pivot, {}).get(name)


def _titled(table: Table, pivot: Any, title: str, cells: list[str], is_number: bool) -> Column:
    if pivot is _WHOLE_ROW or pivot is None:
        return Column('', title, cells, is_number)
    return Column(title, _pivot_title(table.pivot, pivot), cells, is_number)


def _pivot_title(name: str, value: Any) -> str:
    """'1 label per class', '20 labels' of num_labels; 'sigma = 25'; text is unchanged."""
    if isinstance(value, str):
        return value
    first, _, rest = words(name.removeprefix('num_')).partition(' ')
    if isinstance(value, int | np.integer) and first.endswith('s') and not first.endswith('ss'):
        first = first[:-1] if value == 1 else first
        return ' '.join(filter(None, [str(value), first, rest]))
    return f'{words(name)} = {qualifier(value)}'


def qualifier(value: Any) -> str:
    """A value of an index as part of a key: spaces become '_', '/' becomes '-'."""
    text = f'{value:g}' if isinstance(value, float) else str(value)
    return '_'.join(text.replace('/', '-').split())


def words(name: str) -> str:
    """The name of an entry as a heading, without underscores."""
    return name.replace('_', ' ')
