"""Reports in a headless browser: no sideways scrolling of the page, no missing image; contrast of colors."""

import html
import importlib.resources
import json
import re
import shutil
import subprocess

import matplotlib.figure
import numpy as np
import pytest

from lecture4.train import report as reports
from lecture4.train.metrics import Metric
from lecture4.train.report import Figure, Report, Table

BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
METRICS = (
    Metric('accuracy', 'fraction', 'higher', primary=True),
    Metric('a_metric_whose_name_is_rather_long', 'nats/image'),
)
# Reports what overflows: the page, or elements that are not inside one that scrolls.
SCRIPT = """
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll('details').forEach(each => each.open = true);
  const images = [...page.images].filter(image => !image.naturalWidth).map(image => image.alt);
  const wide = [...page.querySelectorAll('body *')].filter(each =>
    each.getBoundingClientRect().right > root.clientWidth + 1
    && !each.closest('.scroll, figure a, pre')).map(each => each.tagName + ' ' + each.className);
  document.body.textContent = 'MEASURED' + JSON.stringify(
    {images, wide, overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth}) + 'END';
};
"""


def measure(folder, page, width):
    """What a browser says about a page in a frame of a width: {'overflow', 'wide', 'images'}."""
    framed = folder / f'framed-{width}.html'
    framed.write_text(
        f'<!doctype html><body><iframe id="frame" style="width:{width}px;height:900px;border:0" '
        f'srcdoc="{html.escape(page)}"></iframe><script>const frame = document.getElementById("frame");'
        f'{SCRIPT}</script></body>'
    )
    options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=10000']
    options += [f'--user-data-dir={folder / "profile"}', '--window-size=1600,1000', '--dump-dom']
    done = subprocess.run(
        [BROWSER, *options, framed.as_uri()], capture_output=True, text=True, timeout=120
    )
    (measured,) = re.findall('MEASURED(.*?)END', html.unescape(done.stdout))
    return json.loads(measured)


def write_widest(folder):
    """A report with what is widest: tables of many columns, long words, wide and tall figures."""
    figure = matplotlib.figure.Figure((9, 3))
    figure.add_subplot().plot([0, 1])
    tall = matplotlib.figure.Figure((3, 6))
    records = [
        {'method': 'a method whose name is long ' * 2, 'n': n, 'accuracy': np.array([0.1, 0.2])}
        for n in range(20)
    ]
    (folder / 'config.json').write_text(json.dumps({'a': 'x' * 300}))
    rows = [
        {'step': n, 'accuracy': 0.1 * n, 'a_metric_whose_name_is_rather_long': 1.0}
        for n in range(3)
    ]
    report = Report(
        {'accuracy': 0.5, 'a_metric_whose_name_is_rather_long': 12345.678},
        (Table('Wide', records, ('method',), pivot='n', caption='What is seen. ' * 20),),
        {'wide': Figure(figure, 'Wide.'), 'tall': Figure(tall, 'Tall.')},
        f'The result, with a word of {"n" * 90}.',
    )
    about = f'Subject (Author, 2011).\n\nExplanation. {"/path" * 30}\n\nRun:  python -m {"x" * 200}'
    reports.write(folder, report, METRICS, title='Subject', about=about, records=rows)
    return (folder / 'report.html').read_text()


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason='needs chromium')
@pytest.mark.parametrize('width', [390, 1200])
def test_the_page_never_scrolls_sideways(tmp_path, width):
    measured = measure(tmp_path, write_widest(tmp_path), width)
    assert measured == {'images': [], 'wide': [], 'overflow': 0, 'width': measured['width']}
    assert width - 20 <= measured['width'] <= width


def luminance(color):
    """Of '#rgb' or '#rrggbb', by WCAG 2."""
    digits = color.lstrip('#')
    digits = ''.join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_text_has_contrast_in_both_color_schemes():
    style = importlib.resources.files('lecture4.train').joinpath('report.html').read_text()
    schemes = [
        dict(re.findall(r'--(\w+): (#\w+)', root)) for root in re.findall(r':root \{(.*)\}', style)
    ]
    assert len(schemes) == 2
    for colors in schemes:
        for text in ('ink', 'faint', 'link', 'warn'):
            for behind in ('paper', 'box'):
                first, second = luminance(colors[text]), luminance(colors[behind])
                ratio = (max(first, second) + 0.05) / (min(first, second) + 0.05)
                assert ratio >= 4.5, (text, behind, ratio)
