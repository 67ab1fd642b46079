"""What the figures show: which sites, over which axes, with labels that fit."""

from __future__ import annotations

import html
import json

import matplotlib.text
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ppl_memprior import compare
from ppl_memprior.comparison.latents import nuisance_rows, shown_coordinates
from ppl_memprior.comparison.report import FIGURES
from ppl_memprior.comparison.report.figures.chains import chains_figure
from ppl_memprior.comparison.report.figures.fields import field_site, fields_figure
from ppl_memprior.comparison.report.figures.marginals import marginals_figure
from ppl_memprior.comparison.report.figures.misfit import misfit_figure
from ppl_memprior.comparison.report.figures.occupancy import occupancy_figure
from ppl_memprior.comparison.report.figures.ranks import ranks_figure
from ppl_memprior.comparison.report.figures.weights import weights_figure

LONG = "the_logarithm_of_the_permeability_of_the_reservoir_in_layer_7"


def tree(
    site="x",
    shape=(2,),
    *,
    others=None,
    deterministics=None,
    visited=None,
    examples=5,
    chi_square=None,
    coords=None,
    truth=None,
    chains=2,
    units=None,
):
    """A tree as `run` returns it, of random draws; `visited` are the nearest examples."""
    rng = np.random.default_rng(0)
    draws = 30 if visited is None else np.shape(visited)[1]
    chains = chains if visited is None else len(visited)
    visited = rng.integers(0, examples, (chains, draws)) if visited is None else visited
    field = len(coords or {}) == 2

    def named(name, values, *lead):
        inner = np.shape(values)[len(lead) :]
        dims = [f"{name}_dim_{i}" for i in range(len(inner))]
        if field and inner == tuple(len(c) for c in coords.values()):
            dims = list(coords)
        return (*lead, *dims), np.asarray(values)

    sites = {site: rng.normal(size=(chains, draws, *shape)), **(others or {})}
    values = sites | (deterministics or {})
    posterior = xr.Dataset(
        {name: named(name, value, "chain", "draw") for name, value in values.items()}
    )
    posterior = posterior.assign_coords(chain=range(chains), draw=range(draws))
    for name, unit in (units or {}).items():
        posterior[name].attrs["units"] = unit
    stats = {"nearest_example": (("chain", "draw"), np.asarray(visited))}
    if chi_square is not None:
        stats["chi_square"] = (("chain", "draw"), np.full((chains, draws), chi_square))
    weight = np.bincount(np.ravel(visited), minlength=examples) / np.size(visited)
    at_examples = {
        site: named(site, rng.normal(size=(examples, *shape)), "example"),
        "mean_responsibility": ("example", weight),
    }
    groups = {
        "/posterior": posterior.assign_coords(coords or {}),
        "/sample_stats": xr.Dataset(stats).assign_coords(chain=range(chains), draw=range(draws)),
        "/examples": xr.Dataset(at_examples).assign_coords(example=range(examples)),
    }
    if truth is not None:
        groups["/truth"] = xr.Dataset({name: named(name, v) for name, v in truth.items()})
    made = xr.DataTree.from_dict(groups)
    made.attrs = {
        "prior_site": site,
        "num_data": 3,
        "latent_sites": json.dumps(list(sites)),
        "independent_draws": 0,
    }
    return made


def drawn(figure):
    """The figure after drawing, with its renderer."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def tick_labels(figure, axis):
    """Texts of the ticks in view, of each panel."""
    drawn(figure)
    found = []
    for axes in figure.axes:
        low, high = sorted(getattr(axes, f"get_{axis}lim")())
        ticks = getattr(axes, f"{axis}axis").get_major_ticks()
        found.append(
            [
                t.label1.get_text()
                for t in ticks
                if low <= t.get_loc() <= high and t.label1.get_visible()
            ]
        )
    return found


def test_chains_next_to_the_same_example_are_drawn_on_the_same_line():
    visited = [[3] * 20, [3] * 10 + [40] * 10, [7] * 20]
    figure = chains_figure({"nuts": tree(visited=visited, examples=50)})
    lines = [np.unique(axes.lines[0].get_ydata()).tolist() for axes in figure.axes]
    assert lines == [[0], [0, 2], [1]]
    assert tick_labels(figure, "y")[0] == ["3", "7", "40"]


def test_examples_beyond_those_that_fit_share_a_line():
    visited = np.concatenate([np.zeros(50, int), np.arange(30)])[None]
    figure = chains_figure({"nuts": tree(visited=visited, examples=30)})
    labels = tick_labels(figure, "y")[0]
    assert len(labels) == 12 and labels[0] == "0" and labels[-1] == "19 others"
    assert int(np.sum(figure.axes[0].lines[0].get_ydata() == 11)) == 19


def test_chains_that_do_not_fit_are_counted():
    runs = {"nuts": tree(chains=11)}
    for figure in (chains_figure(runs), ranks_figure(runs)):
        assert len(figure.axes) == 8
        assert figure.subfigs[0].get_suptitle().endswith("the first 8 of 11 chains")


@pytest.mark.parametrize("count", [1, 13, 250])
def test_axes_of_examples_chains_draws_and_counts_have_whole_numbers(count):
    runs = {"nuts": tree(examples=count, chains=3)}
    axes_of = {
        weights_figure: "x",
        chains_figure: "x",
        occupancy_figure: "x",
        ranks_figure: "y",
    }
    for make, axis in axes_of.items():
        labels = [label for panel in tick_labels(make(runs), axis)[:1] for label in panel]
        assert labels and all(label.lstrip("-").isdecimal() for label in labels), make.__name__
    assert tick_labels(occupancy_figure(runs), "y")[0] == ["0", "1", "2"]


def test_field_panel_shows_the_priors_site_before_a_latent_or_deterministic_matrix():
    rng = np.random.default_rng(1)
    factor = np.tril(rng.normal(size=(2, 30, 3, 3)))
    matrices = {
        "others": {"factor": factor},
        "deterministics": {"covariance": factor @ np.swapaxes(factor, 2, 3)},
    }
    assert field_site(tree("digit", (4, 4), **matrices)) == "digit"
    assert field_site(tree("x", (3,), **matrices)) is None
    image = {"image": rng.normal(size=(2, 30, 3, 3))}
    assert field_site(tree("x", (3,), deterministics=image)) == "image"
    assert field_site(tree("x", (3,), others=image)) is None
    constant = {"velocity": np.full((2, 30, 3, 3), 1500.0)}
    coords = {"depth": np.arange(3.0), "distance": np.arange(3.0)}
    assert field_site(tree("x", (4,), deterministics=constant)) is None
    assert field_site(tree("x", (4,), deterministics=constant, coords=coords)) == "velocity"


def test_only_fields_with_coordinates_have_depth_and_distance():
    digit = fields_figure({"nuts": tree("digit", (8, 8))})
    outer = {axes.get_ylabel() for axes in digit.axes} | {axes.get_xlabel() for axes in digit.axes}
    assert outer >= {"row", "column"} and not any("depth" in label for label in outer)
    assert all(label.isdecimal() for label in tick_labels(digit, "y")[0])
    coords = {"depth": 10.0 * np.arange(4), "distance": 25.0 * np.arange(6)}
    runs = {"nuts": tree("v", (4, 6), coords=coords, units={"v": "m/s"})}
    field = fields_figure(runs)
    assert field.axes[0].get_ylabel() == "depth (m)"
    assert any(axes.get_xlabel() == "distance (m)" for axes in field.axes)
    assert tuple(field.axes[0].images[0].get_extent()) == (-12.5, 137.5, 35.0, -5.0)
    stored = tree("digit", (8, 8))  # dims as they were named before, without coordinates
    renamed = {"digit_dim_0": "depth", "digit_dim_1": "distance"}
    for group in ("posterior", "examples"):
        stored[group] = xr.DataTree(stored[group].to_dataset().rename(renamed))
    assert fields_figure({"nuts": stored}).axes[0].get_ylabel() == "row"


def test_field_panels_without_examples_leave_no_empty_panel():
    rng = np.random.default_rng(1)
    image = {"image": rng.normal(size=(2, 30, 3, 4))}
    runs = {"nuts": tree("x", deterministics=image, truth={"x": [0, 0], "image": np.ones((3, 4))})}
    figure = fields_figure(runs)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "truth",
        "mean\nnuts",
        "standard deviation\nnuts",
    ]
    assert all(axes.images for axes in panels)


def test_every_latent_site_has_a_marginal_and_nuisances_a_row():
    rng = np.random.default_rng(1)
    factor = np.zeros((2, 30, 2, 2))
    factor[..., 0, 0] = 1.0  # always, of a correlation's factor
    factor[..., 1, :] = rng.normal(size=(2, 30, 2))
    others = {"scale": rng.gamma(2.0, size=(2, 30)), "factor": factor}
    truth = {"x": np.zeros(2), "scale": np.asarray(0.25)}
    runs = {"nuts": tree(others=others, truth=truth)}
    names = ["x[0]", "x[1]", "scale", "factor[1, 0]", "factor[1, 1]"]
    assert [str(c) for c in shown_coordinates(runs)] == names
    figure = marginals_figure(runs)
    assert [axes.get_xlabel() for axes in figure.axes] == names
    lines = {line.get_label(): line for line in figure.axes[2].lines}
    assert "examples" not in lines and set(lines["truth"].get_xdata()) == {0.25}
    rows = nuisance_rows(runs)
    assert [row[1] for row in rows] == names[2:]
    assert float(rows[0][2]) == pytest.approx(others["scale"].mean(), rel=1e-3)  # 4 digits
    assert rows[0][-1] == "0.25" and rows[1][-1] == "-"
    assert nuisance_rows({"nuts": tree()}) == []


@pytest.mark.parametrize("misfit", [1e27, 3e4, -50.0, 3.0])
def test_misfits_of_any_size_have_short_labels(misfit):
    figure = misfit_figure({"nuts": tree(chi_square=misfit), "dps": tree(chi_square=2.0)})
    labels = tick_labels(figure, "x")[0]
    assert 2 <= len(labels) <= 14
    assert max(map(len, labels)) <= len(r"$-10^{26}$") and len(set(labels)) == len(labels)
    low, high = figure.axes[0].get_xlim()
    assert low < min(-3, (misfit - 3) / 6**0.5) and high > max(3, (misfit - 3) / 6**0.5)


def test_nothing_is_clipped_and_names_are_shown_as_they_are():
    rng = np.random.default_rng(0)
    site = f"{LONG} $x$ <b> & y"
    one = tree(
        site,
        (4, 5),
        others={"_scale": rng.gamma(2.0, size=(2, 20))},
        visited=rng.integers(0, 40, (2, 20)),
        examples=40,
        chi_square=1e30,
        units={site: "log10 of the permeability in millidarcy"},
    )
    names = ('my own "draws" & those of another <b>sampler</b> a$b', "_nuts")
    runs = dict.fromkeys(names, one)
    made = {figure.name: figure.drawn(runs, None) for figure in FIGURES}
    reading_order = ["misfit", "fields", "weights", "marginals", "chains", "occupancy", "ranks"]
    assert list(made) == reading_order
    for name, figure in made.items():
        box = figure.get_tightbbox(drawn(figure))
        width, height = figure.get_size_inches()
        # a hundredth of an inch, a pixel on the page
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01, name
        texts = " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
        if name != "fields":
            assert r"a\$b" in texts, name
    legend = [text.get_text().strip() for text in made["marginals"].legends[0].get_texts()]
    assert "_nuts" in legend and len(legend) == 3


def test_descriptions_say_what_the_figures_show(cubic_runs, tmp_path):
    comparison = compare(cubic_runs)
    said = {name: figure.get_label() for name, figure in comparison.figures().items()}
    z = float(comparison.table.loc["lookup", "misfit z"])
    assert "lookup" in said["misfit"] and f"{z:.1f}" in said["misfit"]
    assert "x under lookup, linearized" in said["marginals"]
    share = cubic_runs["nuts"]["examples"]["mean_responsibility"].max()
    assert f"with {float(share):.2f}" in said["weights"]
    page = html.unescape(comparison.to_html(tmp_path / "report.html").read_text())
    assert all(f'alt="{text}"' in page for text in said.values())
