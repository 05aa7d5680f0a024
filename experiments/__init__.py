"""Experiments, one file each: `python -m experiments` lists them."""

import sys

# Python imports this package before it looks for the module of -m: here the nearest name can be suggested.
if sys.argv[:1] == ['-m'] and '-m' in sys.orig_argv[:-1]:
    _name = sys.orig_argv[sys.orig_argv.index('-m') + 1]
    if _name.startswith('experiments.'):
        from experiments.__main__ import check_name

        check_name(_name)
