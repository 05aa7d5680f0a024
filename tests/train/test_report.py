"""Tables and pages from records: formatting by the declared metrics, results.json, report.html."""

import json
import re

import matplotlib.figure
import numpy as np
import pytest

from lecture4.train import report as reports
from lecture4.train import tables
from lecture4.train.metrics import Metric
from lecture4.train.report import Figure, Report, Table

METRICS = (
    Metric('test_accuracy', unit='fraction', better='higher', primary=True),
    Metric('probe_error', unit='fraction', better='lower', label='linear-probe error'),
    Metric('psnr', unit='dB', better='higher', label='PSNR'),
    Metric('dead_atoms', unit='count', better='lower'),
    Metric('loss', unit='nats', better='lower'),
)
DRAWS = np.array([0.5, 0.6, 0.7])


def cells(table, column, metrics=METRICS):
    found = {made.title: made.cells for made in tables.layout(table, metrics)}
    return found[column]


def table_of(name, *values, **options):
    records = [{'method': f'm{i}', name: value} for i, value in enumerate(values)]
    return Table('Table', records, ('method',), **options)


@pytest.mark.parametrize(
    ('name', 'values', 'title', 'shown'),
    [
        ('test_accuracy', (0.978, 0.1, 1.0), 'test accuracy (%)', ['97.8', '10.0', '100.0']),
        ('probe_error', (0.0418, 0.0911), 'linear-probe error (%)', ['4.18', '9.11']),
        ('probe_error', (0.0052, 0.0), 'linear-probe error (%)', ['0.52', '0.00']),
        ('psnr', (31.2345, 9.1), 'PSNR (dB)', ['31.23', '9.10']),
        ('dead_atoms', (3, 123456789), 'dead atoms', ['3', '123,456,789']),
        ('loss', (2.5e-6, 1.0), 'loss (nats)', ['2.5e-06', '1']),
        ('loss', (float('nan'), None, -1.25), 'loss (nats)', ['nan', '\u2013', '-1.250']),
        ('loss', ('diverged', 10.0), 'loss (nats)', ['diverged', '10.00']),
    ],
)
def test_a_column_has_the_unit_and_equal_decimals(name, values, title, shown):
    assert cells(table_of(name, *values), title) == shown


def test_draws_are_printed_as_mean_and_standard_error():
    error = 100 * DRAWS.std(ddof=1) / 3**0.5
    table = table_of('test_accuracy', DRAWS, DRAWS[:1], 0.25)
    assert cells(table, 'test accuracy (%)') == [f'60.0 ± {error:.1f}', '50.0', '25.0']
    assert tables.caption(table, METRICS) == 'Mean ± standard error (n = 3).'
    deviation = table_of('test_accuracy', DRAWS, spread='standard deviation', caption='Digits.')
    assert cells(deviation, 'test accuracy (%)') == ['60.0 ± 10.0']
    assert tables.caption(deviation, METRICS) == 'Mean ± standard deviation (n = 3). Digits.'


def test_small_standard_errors_get_a_digit():
    table = table_of('test_accuracy', [0.98, 0.9805, 0.981])
    assert cells(table, 'test accuracy (%)') == ['98.05 ± 0.03']


def test_published_fractions_keep_their_own_digits():
    records = [
        {'method': 'plain', 'probe_error': 0.0501, 'published': 0.0178},
        {'method': 'masking', 'probe_error': 0.0409, 'published': 0.1},
        {'method': 'random', 'probe_error': 0.1, 'published': 'unpublished'},
        {'method': 'raw', 'probe_error': 0.1},
    ]
    table = Table('Features', records, ('method',))
    assert cells(table, 'published (%)') == ['1.78', '10.00', 'unpublished', '\u2013']
    assert set(tables.values(table, METRICS)) == {
        f'probe_error/{method}' for method in ('plain', 'masking', 'random', 'raw')
    }
    records[0]['published'] = 1.78
    with pytest.raises(ValueError, match=r'published 1.78 of probe_error: expected a fraction'):
        tables.layout(table, METRICS)


def test_an_entry_that_no_record_has_a_value_of_is_not_printed():
    records = [{'method': 'PCA', 'psnr': 20.0, 'published': None}]
    columns = tables.layout(Table('Table', records, ('method',)), METRICS)
    assert [column.title for column in columns] == ['method', 'PSNR (dB)']


def test_other_entries_are_printed_as_they_are():
    records = [{'id': 1, 'note': '[b]50 %[/b]', 'sizes': (3, 5), 'fast': True, 'published': 3.25}]
    text = reports.text(Table('Table', records, ('id',)), METRICS)
    assert '[b]50 %[/b]' in text and '3, 5' in text and 'yes' in text and '3.25' in text


def pivoted():
    records = [
        {'method': method, 'labels_per_class': k, 'test_accuracy': DRAWS + shift}
        for shift, method in enumerate(('raw pixels', 'PCA'))
        for k in (1, 5)
    ]
    for record in records[2:]:
        record['test_accuracy'] = DRAWS / 2
    records.append({'method': 'PCA', 'psnr': 20.5})
    return Table('Accuracy', records, ('method',), pivot='labels_per_class')


@pytest.mark.parametrize(
    'name, value, title',
    [('num_labels', 20, '20 labels'), ('num_labels', 1, '1 label'), ('sigma', 25.0, 'sigma = 25')],
)
def test_the_title_of_a_column_names_its_value(name, value, title):
    table = Table(
        'T', [{'method': 'a', name: value, 'test_accuracy': 0.5}], ('method',), pivot=name
    )
    assert tables.layout(table, METRICS)[1].title == title


def test_a_pivot_makes_a_column_of_each_value():
    columns = tables.layout(pivoted(), METRICS)
    assert [(column.group, column.title) for column in columns] == [
        ('', 'method'),
        ('test accuracy (%)', '1 label per class'),
        ('test accuracy (%)', '5 labels per class'),
        ('', 'PSNR (dB)'),
    ]
    assert columns[1].cells == ['60.0 ± 5.8', '30.0 ± 2.9']
    assert columns[3].cells == ['\u2013', '20.50']
    text = reports.text(pivoted(), METRICS).splitlines()
    assert text[0] == 'Accuracy: test accuracy (%)'
    assert text[1].split('  ')[-1].strip() == 'PSNR (dB)'
    html = tables.html(pivoted(), METRICS)
    assert '<th scope="colgroup" colspan="2">test accuracy (%)</th>' in html
    assert html.count('rowspan="2"') == 2


def test_a_pivot_over_numbers_and_words_is_named():
    records = [{'method': 'DCT', 'sigma': 25.0, 'psnr': 30.0}]
    columns = tables.layout(Table('Table', records, ('method',), pivot='sigma'), METRICS)
    assert columns[1].title == 'sigma = 25'
    records = [{'method': 'DCT', 'split': 'test', 'psnr': 30.0}]
    columns = tables.layout(Table('Table', records, ('method',), pivot='split'), METRICS)
    assert columns[1].title == 'test'


def test_keys_are_the_name_and_the_values_of_the_index():
    assert tables.values(pivoted(), METRICS) == pytest.approx(
        {
            'test_accuracy/raw_pixels/1': 0.6,
            'test_accuracy/raw_pixels/5': 0.6,
            'test_accuracy/PCA/1': 0.3,
            'test_accuracy/PCA/5': 0.3,
            'psnr/PCA': 20.5,
        }
    )
    records = [{'network': 'a/b', 'sigma': 12.5, 'test_accuracy/top5': 0.5}]
    assert tables.values(Table('Table', records, ('network', 'sigma')), METRICS) == {
        'test_accuracy/top5/a-b/12.5': 0.5
    }


def test_two_values_of_one_key_are_refused():
    records = [{'method': 'PCA', 'psnr': 1.0}, {'method': 'PCA', 'psnr': 2.0}]
    with pytest.raises(
        ValueError,
        match='two records have different values of psnr/PCA, 1 and 2; add the entry that dist',
    ):
        tables.values(Table('Table', records, ('method',)), METRICS)
    report = Report({'psnr/PCA': 3.0}, (Table('Table', records[:1], ('method',)),))
    with pytest.raises(ValueError, match="psnr/PCA is 3 in the report and 1 in table 'Table'"):
        reports.collect(report, METRICS)
    records = [{'method': 'PCA', 'k': 1, 'psnr': 1.0}] * 2
    with pytest.raises(ValueError, match='two records of method=PCA, k=1'):
        tables.layout(Table('Table', records, ('method',), pivot='k'), METRICS)


def test_names_that_no_record_has_are_refused():
    records = [{'method': 'PCA', 'psnr': 1.0}]
    with pytest.raises(ValueError, match="a record has no 'depth', which names its row"):
        Table('Table', records, ('depth',))
    with pytest.raises(ValueError, match="no record has 'snr'; there are: method, psnr"):
        Table('Table', records, ('method',), columns=('snr',))
    with pytest.raises(ValueError, match="no record has 'k'"):
        Table('Table', records, ('method',), pivot='k')


def test_text_is_aligned_and_fits_the_width():
    lines = reports.text(table_of('psnr', 31.2, 9.1, caption='word ' * 40), METRICS).splitlines()
    assert lines[0] == 'Table'
    assert (
        lines[1].endswith('PSNR (dB)') and lines[3].endswith('31.20') and lines[4].endswith(' 9.10')
    )
    assert len({len(line) for line in lines[1:5]}) == 1
    narrow = reports.text(table_of('psnr', 31.2, caption='word ' * 40), METRICS, width=40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_the_fullest_record_decides_the_order_of_columns():
    records = [{'method': 'raw', 'psnr': 20.0}, {'method': 'PCA', 'loss': 1.0, 'psnr': 21.0}]
    columns = tables.layout(Table('Table', records, ('method',)), METRICS)
    assert [column.title for column in columns] == ['method', 'loss (nats)', 'PSNR (dB)']


ABOUT = """A linear probe on digits (Author, 2011).

Explains <what> is done,
in two lines.

Run:      python -m experiments.probe
Results:  | method | ours |
"""


@pytest.fixture
def page(tmp_path):
    def draw():
        figure = matplotlib.figure.Figure((1, 1))
        figure.add_subplot().plot([0, 1])
        return figure

    table = table_of('test_accuracy', DRAWS, 0.25, caption='Said once.')
    other = table_of('psnr', 31.2, caption='Said twice.')
    report = Report(
        {'test_accuracy': np.float32(0.75), 'psnr': np.inf},
        (table, other),
        {'filters': Figure(draw(), 'Filters.'), 'codes': Figure(draw(), 'Said twice.')},
        'The probe is right in 75 % of the cases.',
    )
    (tmp_path / 'config.json').write_text('{"seed": 0}')
    records = [{'step': n, 'seconds': 1.0, 'loss': 1 / (n + 1), 'dead_atoms': 0} for n in range(5)]
    reports.write(
        tmp_path, report, METRICS, title='linear probe', about=ABOUT, records=records
    )  # fmt: skip
    return tmp_path


def test_results_hold_metrics_declarations_and_records(page):
    results = json.loads((page / 'results.json').read_text())
    assert results['metrics'] == {
        'test_accuracy': 0.75,
        'psnr': None,
        'test_accuracy/m0': pytest.approx(0.6),
        'test_accuracy/m1': 0.25,
        'psnr/m0': 31.2,
    }
    assert results['primary'] == 'test_accuracy'
    assert results['declared']['psnr'] == {'unit': 'dB', 'better': 'higher', 'label': 'PSNR'}
    assert results['tables'][0]['records'][0] == {'method': 'm0', 'test_accuracy': DRAWS.tolist()}
    assert results['tables'][0]['index'] == ['method']


def test_the_page_begins_with_the_result_and_ends_with_details(page):
    text = (page / 'report.html').read_text()
    order = [
        '<h1>Linear probe</h1>',
        'A linear probe on digits (Author, 2011).',
        'Explains &lt;what&gt; is done, in two lines.',
        'The probe is right in 75 % of the cases.',
        'figures/filters.png',
        '60.0 ± 5.8',
        'figures/codes.png',
        'figures/learning.png',
        'All metrics',
        'Run:      python -m',
        'config.json',
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert '$' not in re.sub(r'<pre>.*?</pre>', '', text, flags=re.DOTALL)


def test_no_caption_stands_on_the_page_twice(page):
    text = re.sub(r'alt="[^"]*"', '', (page / 'report.html').read_text())
    assert text.count('Said twice.') == 1 and text.count('Filters.') == 1


def test_the_page_fits_a_phone_and_dark_mode(page):
    text = (page / 'report.html').read_text()
    assert 'name="viewport"' in text and 'prefers-color-scheme: dark' in text
    assert text.count('<table>') == text.count('<div class="scroll" tabindex="0"><table>') == 3


def test_several_figures_are_an_animation(tmp_path):
    def draw(x):
        figure = matplotlib.figure.Figure((1, 1))
        figure.add_subplot().plot([0, x])
        return figure

    report = Report(
        {'test_accuracy': 0.5}, figures={'growth': Figure([draw(1), draw(2)], 'Grows.')}
    )
    reports.write(tmp_path, report, METRICS, title='probe')
    assert (tmp_path / 'figures/growth.gif').read_bytes().startswith(b'GIF89a')
    text = (tmp_path / 'report.html').read_text()
    assert 'src="data:image/gif;base64,' in text and 'href="figures/growth.gif"' in text


def test_a_report_with_undeclared_or_missing_metrics_is_refused(tmp_path):
    for report, message in (
        (Report({'test_accuracy': 75.0}), r'test_accuracy is 75, expected a fraction in \[0, 1\]'),
        (Report({'test_accuracy': 0.75, 'lost': 1.0}), 'report: metric lost is not declared'),
        (Report({'psnr': 0.75}), 'the primary metric test_accuracy is missing'),
    ):
        with pytest.raises(ValueError, match=message):
            reports.write(tmp_path, report, METRICS, title='probe')
    assert not (tmp_path / 'results.json').exists()


def test_label_table_has_a_column_for_each_number_of_labels():
    draws = {'PCA': np.array([[0.5, 0.7], [0.8, 0.8]]), 'codes': np.array([[0.6, 0.6], [0.9, 0.9]])}
    table = tables.label_table(draws, (1, 5), caption='Two draws.')
    assert (table.index, table.pivot, table.caption) == (
        ('features',),
        'labels_per_class',
        'Two draws.',
    )
    cells = {(r['features'], r['labels_per_class']): r['accuracy'].mean() for r in table.records}
    assert cells == pytest.approx(
        {('PCA', 1): 0.6, ('PCA', 5): 0.8, ('codes', 1): 0.6, ('codes', 5): 0.9}
    )
    with pytest.raises(ValueError, match='zip'):
        tables.label_table(draws, (1, 5, 20))


def test_titles_are_the_subjects_of_docstrings():
    about = 'Self-taught learning (Raina & Ng, ICML 2007).\n\nMore.\n\nRun:  python -m a'
    assert reports.title_of(about, 'self_taught') == 'Self-taught learning'
    assert reports.title_of('Nets of 20 (a) to 110 layers.', 'n') == 'Nets of 20 (a) to 110 layers'
    assert reports.title_of('', 'self_taught') == 'Self taught'


def test_the_title_is_not_repeated_below_it(tmp_path):
    about = 'Self-taught learning (Raina & Ng, ICML 2007).\n\nMore.'
    for title in ('Self-taught learning', 'Self-taught learning: sweep rate'):
        reports.write(tmp_path, Report({'test_accuracy': 0.5}), METRICS, title=title, about=about)
        text = (tmp_path / 'report.html').read_text()
        assert f'<h1>{title}</h1>\n<p class="subject">Raina &amp; Ng, ICML 2007</p>' in text


def test_a_figure_that_fails_is_named_and_all_else_is_kept(tmp_path, caplog):
    """matplotlib raises when it draws, not when the figure is made."""

    def draw(title):
        figure = matplotlib.figure.Figure((1, 1))
        figure.add_subplot().set_title(title)
        return figure

    figures = {
        'good': Figure(draw('a')),
        'bad': Figure(draw(r'$\frac$')),
        'also': Figure(draw('b')),
    }
    report = Report({'test_accuracy': 0.5}, figures=figures)
    reports.write(tmp_path, report, METRICS, title='probe')
    text = (tmp_path / 'report.html').read_text()
    assert '<p class="failed">Figure bad could not be drawn: ValueError: ' in text
    assert 'figures/good.png' in text and 'figures/also.png' in text
    assert 'Figure bad could not be drawn' in caplog.text
    assert json.loads((tmp_path / 'results.json').read_text())['metrics'] == {'test_accuracy': 0.5}


def test_links_stand_in_the_first_cell_of_a_row():
    records = [{'name': 'a', 'psnr': 1.0, 'page': 'a/x.html'}, {'name': '<b>', 'psnr': 2.0}]
    table = Table('Runs', records, ('name',), link='page')
    assert [column.title for column in tables.layout(table, METRICS)] == ['name', 'PSNR (dB)']
    text = tables.html(table, METRICS)
    assert '<a href="a/x.html">a</a>' in text and '>&lt;b&gt;</th>' in text
