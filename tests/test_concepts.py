import numpy as np
import pytest

from engine.concepts import arithmetic, blend, cosine, slerp, vary
from engine.errors import SeedError, VectorError

rng = np.random.default_rng(0)
A, B, C = (rng.standard_normal(64).astype(np.float32) for _ in range(3))
A, B, C = (v * 8 / np.linalg.norm(v) for v in (A, B, C))


def test_slerp_walks_the_sphere_at_even_speed() -> None:
    path = np.stack([slerp(A, B, t) for t in np.linspace(0, 1, 9)])
    assert np.allclose(path[0], A, atol=1e-5) and np.allclose(path[-1], B, atol=1e-5)
    assert np.allclose(np.linalg.norm(path, axis=1), 8, atol=1e-4)
    steps = np.arccos(np.clip(np.diag(cosine(path[:-1], path[1:])), -1, 1))
    assert np.allclose(steps, steps[0], atol=1e-3)
    assert np.allclose(slerp(A, A, 0.3), A)
    with pytest.raises(VectorError, match="opposites"):
        slerp(A, -A, 0.5)


def test_blend_and_arithmetic_keep_the_norm() -> None:
    assert np.allclose(blend(np.stack([A, B]), [1, 0]), A, atol=1e-5)
    assert np.linalg.norm(blend(np.stack([A, B, C]), [1, 2, 3])) == pytest.approx(8, rel=1e-5)
    assert np.allclose(arithmetic(A, B, B), A, atol=1e-4)
    assert np.linalg.norm(arithmetic(A, B, C)) == pytest.approx(8, rel=1e-5)
    for weights in ([0, 0], [1, -1], [np.nan, 1], [1]):
        with pytest.raises(VectorError):
            blend(np.stack([A, B]), weights)


def test_vary_is_seeded_and_grows_with_its_amount() -> None:
    assert np.array_equal(vary(A, 0.3, 1), vary(A, 0.3, 1))
    assert not np.array_equal(vary(A, 0.3, 1), vary(A, 0.3, 2))
    near, far = (cosine(A, vary(A, amount, 1))[0, 0] for amount in (0.1, 0.8))
    assert near > 0.98 > far
    assert np.allclose(vary(A, 0.0, 1), A, atol=1e-5)
    with pytest.raises(SeedError, match="from 0 up"):
        vary(A, 0.1, -1)
