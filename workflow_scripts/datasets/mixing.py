"""How often each train row of a combined set is written, so that its members have the shares they are given.

Member i has n_i train rows, all have N = Σ n_i. The mixture has N rows too, k_i ≈ p_i N of member i, where
    p_i = w_i / Σ w_j                     by weights w, or
    p_i = n_i^(1/T) / Σ n_j^(1/T)         by a temperature T.
The latter is the temperature-scaled mixing of T5 (Raffel et al. 2020, JMLR 21:140, section 3.5.2) without its limit
on a set's size; the α of mT5 (Xue et al. 2021) is 1/T. T = 1 leaves the sets as they are, T → ∞ makes them equal.
"""

import math
import random
import re

from workflow_scripts.base.errors import UserError

_COPY = re.compile(r"#copy\d+$")


def sizes(rows: dict[str, int], weights: dict[str, float], temperature: float | None) -> dict[str, int]:
    """k_i of each member, from `rows`, its n_i: p_i N rounded by largest remainders, so that they sum to N.

    Without weights and temperature that is n_i. A member without train rows is a UserError.
    """
    if empty := [name for name, count in rows.items() if not count]:
        raise UserError(
            f"{', '.join(empty)}: no train rows to mix; remove it from the members of the combination"
        )
    if weights:
        shares = {name: weights[name] for name in rows}
    else:
        # Logarithms keep n^(1/T) finite for any temperature.
        logs = {name: math.log(count) / (temperature or 1) for name, count in rows.items()}
        shares = {name: math.exp(log - max(logs.values())) for name, log in logs.items()}
    total = sum(rows.values())
    exact = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    found = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return found


def copies(rows: int, wanted: int, seed: str) -> list[int]:
    """How often each of `rows` rows is written so that `wanted` are: ⌊k/n⌋ times, and k mod n of them once more.

    Those are drawn without replacement, by `seed` alone.
    """
    whole, more = divmod(wanted, rows)
    found = [whole] * rows
    for row in random.Random(seed).sample(range(rows), more):
        found[row] += 1
    return found


def copy_id(id: str, number: int) -> str:
    """The id of the `number`-th time that a row is written, from 0, which keeps the row's own."""
    return f"{id}#copy{number + 1}" if number else id


def is_copy(id: str) -> bool:
    """Whether `copy_id` made this id for a further time."""
    return bool(_COPY.search(id))
