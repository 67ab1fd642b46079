"""The demonstrations at a small size: the same code, fewer draws."""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest

from ppl_memprior import compare, demos, lookup, methods, run

TINY = {
    "num_samples": 8,
    "num_warmup": 4,
    "num_chains": 2,
    "num_importance_draws": 25,
    "num_steps": 4,
}


@pytest.mark.torch
def test_generated_inversion_in_both_settings():
    pytest.importorskip("deepwave")
    several, one = demos.fwi(demos.SEVERAL_EXAMPLES, 1), demos.fwi(demos.ONE_EXAMPLE, 1)
    assert several.reference == "mode-jump" and several.reference in [
        m.label for m in several.methods
    ]
    # what the second setting is for: one example carries the weight, and it is the wrong one
    posterior = lookup(one.problem)
    assert float(posterior.weights.max()) > 0.999
    chi_square = -2 * (posterior.log_likelihoods.max() - one.problem.log_normalizer())
    m = one.problem.num_data
    assert (chi_square - m) / np.sqrt(2 * m) > 5
    assert float(lookup(several.problem).weights.max()) < 0.9

    # mode-jump linearizes at all examples first, which takes too long here
    names = [method.name for method in several.methods if method.name != several.reference]
    runs = run(
        several.problem,
        methods.configured(names, **TINY),
        jax.random.key(0),
        truth=several.truth,
        coords=several.coords,
        units=several.units,
        progress=False,
    )
    comparison = compare(runs, reference="nuts")
    of_chains = {"chains", "occupancy", "ranks"}
    assert set(comparison.figures()) == {"misfit", "fields", "weights", "marginals", *of_chains}
    field = runs["nuts"]["posterior"].to_dataset()["velocity"]
    assert field.dims == ("chain", "draw", "depth", "distance") and field.attrs["units"] == "m/s"


@pytest.mark.torch
def test_openfwi_models():
    pytest.importorskip("deepwave")
    root = os.environ.get("OPENFWI_ROOT")
    if not root:
        pytest.skip("OPENFWI_ROOT is not set: no OpenFWI models to read")
    study = demos.openfwi(os.path.join(root, "CurveVel_A"), 0)
    assert study.truth["velocity"].shape == (24, 24)
    # distances between scores are root-mean-square velocity differences in m/s
    velocity = jax.vmap(study.problem.deterministics)(study.problem.examples[:2])["velocity"]
    expected = np.sqrt(np.mean((velocity[0] - velocity[1]) ** 2))
    found = np.linalg.norm(study.problem.examples[0] - study.problem.examples[1])
    assert found == pytest.approx(expected, rel=1e-4)
    tiny = methods.Lookup(num_samples=8)
    runs = run(study.problem, [tiny], jax.random.key(0), progress=False)
    assert runs["lookup"].attrs["num_data"] == study.problem.num_data


@pytest.mark.torch
def test_too_few_openfwi_models_are_refused(tmp_path):
    pytest.importorskip("deepwave")
    models = np.random.default_rng(0).uniform(1500, 4500, (5, 1, 70, 70)).astype(np.float32)
    np.save(tmp_path / "model1.npy", models)
    with pytest.raises(ValueError, match="holds 5 models; the demonstration needs 50"):
        demos.openfwi(tmp_path, 0)
