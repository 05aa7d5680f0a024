"""Lists the experiments: `python -m experiments`."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent


def main() -> None:
    """Print each experiment's command and the first line of its docstring."""
    for path in sorted(ROOT.rglob('*.py')):
        if not path.name.startswith('_'):
            name = '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts)
            about = ast.get_docstring(ast.parse(path.read_text())) or ''
            print(f'python -m {name:<47} {about.partition(chr(10))[0]}')


if __name__ == '__main__':
    main()
