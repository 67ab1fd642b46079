"""Numbers as text of bounded length."""

from __future__ import annotations

import pytest

from ppl_memprior._numbers import written


@pytest.mark.parametrize(
    ("value", "how", "text"),
    [
        (1.23456, ".3f", "1.235"),
        (4321.0, "+.1f", "+4321.0"),
        (-1234567.891, ".2f", "-1234567.89"),  # an evidence's differences are read from the end
        (123456789.123, ".3f", "1.23e+08"),
        (9.9936e17, "+.1f", "+9.99e+17"),
        (1_234_567, ",d", "1,234,567"),
        (10**27, ",d", "1.00e+27"),
        (float("inf"), ".1f", "inf"),
        (float("nan"), ".2f", "-"),
    ],
)
def test_long_numbers_are_written_in_scientific_notation(value, how, text):
    assert written(value, how) == text
