"""The documentation explains exactly the columns and figures that the report has."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppl_memprior.comparison import Column
from ppl_memprior.comparison.report import columns_as_markdown, figures_as_markdown

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"


@pytest.mark.parametrize("generate", [columns_as_markdown, figures_as_markdown])
def test_the_page_has_the_generated_table(generate):
    generated = generate()
    header = generated.split("\n")[0]
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    assert lines.count(header) == 1, f"{PAGE.name} has no table that begins with {header}"
    start = lines.index(header)
    assert "\n".join(lines[start : lines.index("", start)]) == generated, (
        f"replace the table of {PAGE.name} that begins with {header} by the output of: python -c "
        f"'from ppl_memprior.comparison import report; print(report.{generate.__name__}())'"
    )


def test_a_column_is_one_row_of_the_markdown_table():
    column = Column(name="|x|", compute=abs, format=".1f", help="Size of x.", unit="m/s")
    assert columns_as_markdown([column]) == (
        "| column | unit | meaning |\n|---|---|---|\n| \\|x\\| | m/s | Size of x. |"
    )
