"""The picture of a survey that the documentation shows.

python examples/survey_picture.py docs/survey.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from ppl_memprior.forward import Survey


def main(
    picture: Path, shape: tuple[int, int] = (50, 70), num_receivers: int = 24, dpi: int = 110
) -> Survey:
    """Draw a transmission survey into a PNG file."""
    survey = Survey.transmission(
        shape, num_shots=5, num_receivers=num_receivers, peak_frequency=8.0, dt=0.002, num_times=500
    )
    survey.plot(grid_spacing=10.0).savefig(picture, dpi=dpi)
    return survey


if __name__ == "__main__":
    main(Path(sys.argv[1]))
