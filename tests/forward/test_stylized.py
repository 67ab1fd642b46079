"""The paper's stylized maps at points worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_memprior.forward import stylized


def test_cubic():
    np.testing.assert_allclose(stylized.cubic(jnp.array([0.0, 1.0, -2.0])), [0.0, 1.3, -4.4])
    assert jax.grad(stylized.cubic)(2.0) == pytest.approx(1 + 0.9 * 4, rel=1e-6)


def test_quadratic():
    points = jnp.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]])
    expected = [[0.0, 0.0], [1.6, 2.2], [-1.15, 0.7]]
    np.testing.assert_allclose(stylized.quadratic(points), expected, rtol=1e-6)
    jacobian = jax.jacfwd(stylized.quadratic)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(jacobian, [[1.6, 0.3], [0.4, 1.0]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\)"):
        stylized.quadratic(jnp.zeros(3))


@pytest.mark.torch
def test_examples_in_two_dimensions_are_the_published_draws():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(42)
    draws = 1.8 * torch.randn(5, 2, generator=generator)
    np.testing.assert_allclose(stylized.EXAMPLES_2D, draws.numpy(), atol=1e-6)
