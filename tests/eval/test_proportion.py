"""Wilson's interval: published values, its ends, and the equation that defines it."""

import math

import pytest

from eval.proportion import Z, wilson


@pytest.mark.parametrize("hits, n", [(1, 29), (15, 148), (81, 263), (5, 10)])
def test_its_ends_are_the_shares_from_which_the_observed_one_is_just_as_far_as_95_percent_allow(hits, n):
    for end in wilson(hits, n):
        assert abs(hits / n - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n))


def test_published_values():
    """Newcombe, Statistics in Medicine 17:857 (1998), table I, method 3."""
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_the_bounds_and_what_is_no_share():
    assert wilson(0, 7)[0] == 0.0 and wilson(7, 7)[1] == 1.0 and wilson(7, 7)[0] < 1.0
    assert wilson(0, 0) is None
    for hits, n in [(3, 2), (-1, 4)]:
        with pytest.raises(ValueError, match="no share"):
            wilson(hits, n)
