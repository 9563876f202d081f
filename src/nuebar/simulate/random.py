"""Counter-based random numbers for event kernels: a draw is a function of (key, counter) and of nothing else.

So an event does not depend on which events were simulated before it or by which worker. The generator is
Squares: B. Widynski, arXiv:2004.06278 (2020), five rounds, 64 bits. Normal deviates come from one uniform each
through the inverse distribution function of M. Wichura, Appl. Statist. 37, 477 (1988), algorithm AS 241, which is
monotone and good to 1e-16.
"""

from __future__ import annotations

import hashlib
import math
from numbers import Integral

import numpy as np

from nuebar.errors import NuebarError
from nuebar.kernels import njit

__all__ = ["DRAWS_PER_EVENT", "derive_key", "event_counter", "normal", "normal_quantile", "poisson", "uniform"]

DRAWS_PER_EVENT = 1 << 20
"""Counters that an event may use before it meets those of the next one."""

_SHIFT = np.uint64(32)
_TO_UNIT = 2.0**-52
_DROP = np.uint64(12)  # 53 bits and a half would round up to 1
_PER_EVENT = np.uint64(DRAWS_PER_EVENT)


def derive_key(seed: int, *words: str | int) -> np.uint64:
    """A 64-bit key from the seed of a run and the names of what it is for.

    Args:
        seed: Whole number, not negative.
        *words: Stage, chunk, purpose: different words give independent keys.

    Raises:
        NuebarError: The seed is not a whole number or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise NuebarError(f"seed: expected a whole number that is not negative, got {seed!r}; give one like 1")
    text = "\x1f".join([str(int(seed)), *(str(w) for w in words)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)  # an odd key: the counter runs through all residues


@njit
def event_counter(event: int) -> np.uint64:
    """The first counter of an event of this number."""
    return np.uint64(event) * _PER_EVENT


@njit
def _bits(key: np.uint64, counter: np.uint64) -> np.uint64:
    x = counter * key
    y = x
    z = y + key
    x = x * x + y
    x = (x >> _SHIFT) | (x << _SHIFT)
    x = x * x + z
    x = (x >> _SHIFT) | (x << _SHIFT)
    x = x * x + y
    x = (x >> _SHIFT) | (x << _SHIFT)
    x = x * x + z
    t = x
    x = (x >> _SHIFT) | (x << _SHIFT)
    return t ^ ((x * x + y) >> _SHIFT)


@njit
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """A number in the open interval (0, 1), 52 bits, from a key and a counter (both uint64)."""
    return (np.float64(_bits(key, counter) >> _DROP) + 0.5) * _TO_UNIT


@njit
def normal_quantile(p: float) -> float:
    """Inverse of the standard normal distribution function, 0 < p < 1 (AS 241)."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        top = 2509.0809287301226727 * r + 33430.575583588128105
        top = (top * r + 67265.770927008700853) * r + 45921.953931549871457
        top = (top * r + 13731.693765509461125) * r + 1971.5909503065514427
        top = (top * r + 133.14166789178437745) * r + 3.3871328727963666080
        low = 5226.495278852854561 * r + 28729.085735721942674
        low = (low * r + 39307.895800092710610) * r + 21213.794301586595867
        low = (low * r + 5394.1960214247511077) * r + 687.18700749205790830
        low = (low * r + 42.313330701600911252) * r + 1.0
        return q * top / low
    r = math.sqrt(-math.log(p if q < 0.0 else 1.0 - p))
    if r <= 5.0:
        r -= 1.6
        top = 7.7454501427834140764e-4 * r + 0.022723844989269184583
        top = (top * r + 0.24178072517745061177) * r + 1.2704582524523683826
        top = (top * r + 3.6478483247632046050) * r + 5.7694972214606914055
        top = (top * r + 4.6303378461565452959) * r + 1.4234371107496835773
        low = 1.0507500716444168432e-9 * r + 5.4759380849953449460e-4
        low = (low * r + 0.015198666563616457197) * r + 0.14810397642748007459
        low = (low * r + 0.68976733498510000455) * r + 1.6763848301838038494
        low = (low * r + 2.0531916266377588219) * r + 1.0
    else:
        r -= 5.0
        top = 2.0103343992922881327e-7 * r + 2.7115555687434875782e-5
        top = (top * r + 1.2426609473880784386e-3) * r + 0.026532189526576123093
        top = (top * r + 0.29656057182850489123) * r + 1.7848265399172913358
        top = (top * r + 5.4637849111641143699) * r + 6.6579046435011037772
        low = 2.0442631033899397856e-15 * r + 1.4215117583164458887e-7
        low = (low * r + 1.8463183175100546818e-5) * r + 7.8686913114561325910e-4
        low = (low * r + 0.014875361290850614853) * r + 0.13692988092273580531
        low = (low * r + 0.59983220655588793769) * r + 1.0
    return -top / low if q < 0.0 else top / low


@njit
def normal(key: np.uint64, counter: np.uint64) -> float:
    """A standard normal number from one draw."""
    return normal_quantile(uniform(key, counter))


@njit
def poisson(mean: float, key: np.uint64, counter: np.uint64) -> int:
    """A Poisson number from one draw, by inversion: exact, and meant for means below some hundreds.

    Args:
        mean: Of the distribution.
        key: Of the draw.
        counter: Which draw.
    """
    u = uniform(key, counter)
    n = 0
    term = math.exp(-mean)
    total = term
    while u > total and n < 100_000:
        n += 1
        term *= mean / n
        if term < 1e-300 and n > mean:
            break
        total += term
    return n
