"""Numbers in sentences have as many digits as the sentence needs to be true."""

from __future__ import annotations

import numpy as np
import pytest

from ppl_memprior.diagnostics.verdicts._wording import beside


@pytest.mark.parametrize(
    ("value", "limit", "decimals", "written"),
    [
        (1.0104, 1.01, 2, ("1.0104", "1.01")),
        (1.79, 1.01, 2, ("1.79", "1.01")),
        (0.00412, 0.00396, 3, ("0.0041", "0.004")),
        (399.6, 400.0, 0, ("399.6", "400")),
        (1234.5, 400.0, 0, ("1,234", "400")),
        (0.7, 0.7, 2, ("0.70", "0.70")),
        (np.inf, 1.01, 2, ("inf", "1.01")),
        (np.nan, 0.7, 2, ("nan", "0.70")),
    ],
)
def test_numbers_that_are_compared_are_written_apart(value, limit, decimals, written):
    assert beside(value, limit, decimals) == written
