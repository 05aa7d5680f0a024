"""beartype as jaxtyping's import hook calls it: where a float is expected an int will do, as type checkers say."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
