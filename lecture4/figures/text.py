"""Figures of text classifiers: the n-grams that filters respond to."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from lecture4.figures import style


@style.context()
def top_ngrams(
    groups: Mapping[str, Iterable[tuple[str, Sequence[tuple[str, int | float]]]]],
    *,
    title: str = '',
    columns: int = 2,
) -> Figure:
    """Panels of filters, each with its n-grams as bars whose length is the activation.

    Args:
      groups: Name -> filters, each of them (label, [(text, activation), ...]) with the largest activation first; one
        block of panels and one color for each name.
      title: Title.
      columns: Number of panels per row.

    Raises:
      ValueError: There is no filter.
    """
    panels = [(name, label, rows) for name, filters in groups.items() for label, rows in filters]
    if not panels:
        raise ValueError('no filter to draw; expected at least one')
    colors = {name: style.COLORS[i % 7] for i, name in enumerate(groups)}
    n_bars = max(max(len(rows) for *_, rows in panels), 1)
    n_rows = -(-len(panels) // columns)
    panel_height = 0.19 * n_bars + 0.34
    head = 0.35 if title else 0.05
    height = panel_height * n_rows + head
    fig = style.figure(4.6 * columns, height)
    grid = fig.subplots(n_rows, columns, squeeze=False)
    fig.subplots_adjust(
        left=0.01,
        right=0.99,
        bottom=0.01,
        top=1 - head / height - 0.24 / (panel_height * n_rows),
        hspace=0.34 / (panel_height - 0.3) * 0.9,
        wspace=0.04,
    )
    for axes in grid.ravel()[len(panels) :]:
        axes.remove()
    for axes, (name, label, rows) in zip(grid.ravel(), panels, strict=False):
        color = colors[name]
        values = [value for _, value in rows]
        scale = max(values, default=1) or 1
        widths = [value / scale for value in values]
        axes.barh(range(len(rows)), widths, 0.86, color=color, alpha=0.25, linewidth=0)
        for i, (text, value) in enumerate(rows):
            axes.text(0.01, i, style.plain_text(_short(text)), va='center', fontsize=8)
            number = {'va': 'center', 'ha': 'right', 'fontsize': 7, 'color': style.FAINT}
            axes.text(1.13, i, f'{value:.2f}', **number)
        if not rows:
            axes.text(0.01, 0, 'never active', va='center', fontsize=8, color=style.FAINT)
        axes.set_title(style.plain_text(f'{name}: {label}'), color=color, fontsize=8.5)
        axes.set_xlim(0, 1.15)
        axes.set_ylim(n_bars - 0.5, -0.5)
        axes.axis('off')
    if title:
        fig.suptitle(style.plain_text(title), x=0.01, ha='left')
    return fig


def _short(text, max_length=58):
    return text if len(text) <= max_length else text[: max_length - 1] + '…'
