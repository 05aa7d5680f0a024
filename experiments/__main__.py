"""Lists the experiments: `python -m experiments`; `--write_pages` writes README.md of each folder of them."""

import ast
import difflib
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent
PAGE = """What each experiment is about, how it is run, and its results: the docstrings of the files, copied by
`python -m experiments --write_pages`. All results in one table: [experiments](../README.md).
"""


def listed() -> dict[str, str]:
    """Module name -> first line of the docstring, of every experiment, in order of name."""
    experiments = {}
    for path in sorted(ROOT.rglob('*.py')):
        if not path.name.startswith('_'):
            name = '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts)
            about = ast.get_docstring(ast.parse(path.read_text())) or ''
            experiments[name] = about.partition('\n')[0]
    return experiments


def nearest(name: str) -> str:
    """The experiment with the nearest name; '' if none is near. The last word counts most."""
    names = list(listed())
    by_last = {known.rpartition('.')[2]: known for known in names}
    last = difflib.get_close_matches(name.rpartition('.')[2], by_last, 1, 0.75)
    whole = difflib.get_close_matches(name, names, 1, 0.8)
    return by_last[last[0]] if last else whole[0] if whole else ''


def check_name(name: str) -> None:
    """Exit with the nearest name, without a traceback, if `experiments.NAME` is not an experiment."""
    path = ROOT.joinpath(*name.split('.')[1:])
    if path.with_suffix('.py').is_file():
        return
    if path.is_dir():
        hint = f'one of {", ".join(known for known in listed() if known.startswith(f"{name}."))}'
    else:
        near = nearest(name)
        hint = f'did you mean {near}?' if near else 'python -m experiments lists all'
    print(f'{name} is not an experiment; {hint}', file=sys.stderr)
    sys.exit(2)


def pages() -> dict[pathlib.Path, str]:
    """README.md of each folder -> its text: the docstrings of the experiments there."""
    texts = {}
    for folder in sorted({path.parent for path in ROOT.glob('*/*.py')}):
        parts = [f'# {folder.name.replace("_", " ").capitalize()}\n', PAGE]
        for path in sorted(folder.glob('*.py')):
            if path.name.startswith('_'):
                continue
            about = ast.get_docstring(ast.parse(path.read_text())) or ''
            title, _, rest = about.partition('\n')
            prose, _, record = rest.strip().partition('\nRun:')
            parts.append(f'## [{path.stem}]({path.name})\n\n{title}\n\n{prose.strip()}\n')
            parts.append(f'```text\nRun:{record.rstrip()}\n```\n')
        texts[folder / 'README.md'] = '\n'.join(parts)
    return texts


def main() -> None:
    """Print each experiment's command and the first line of its docstring; or write the pages."""
    if sys.argv[1:] == ['--write_pages']:
        for path, text in pages().items():
            path.write_text(text)
        return
    for name, about in listed().items():
        print(f'python -m {name:<47} {about}')


if __name__ == '__main__':
    main()
