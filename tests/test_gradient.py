"""Gradients: rising runs, and sentences that lead from one end to the other."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine import Engine, concepts
from engine.gradient import gradients, longest_rising, steady

values = st.lists(st.floats(0, 1), min_size=2, max_size=40)


@given(values)
def test_the_longest_rising_run_rises_and_none_is_longer(numbers: list[float]) -> None:
    run = longest_rising(numbers)
    assert run == sorted(set(run))
    assert all(numbers[a] < numbers[b] for a, b in pairwise(run))
    best = [1] * len(numbers)  # the textbook way: the longest run that ends at each place
    for i in range(len(numbers)):
        best[i] = 1 + max((best[j] for j in range(i) if numbers[j] < numbers[i]), default=0)
    assert len(run) == max(best)


@given(values, st.integers(2, 12))
def test_steady_gives_as_many_as_asked_in_order(numbers: list[float], n: int) -> None:
    n = min(n, len(numbers))
    chosen = steady(numbers, n)
    assert len(chosen) == n
    assert (chosen[0], chosen[-1]) == (0, len(numbers) - 1)
    assert chosen == sorted(set(chosen))


def test_steady_leaves_out_what_goes_back() -> None:
    assert steady([0.0, 0.0, 0.0, 0.3, 0.2, 0.6, 0.6, 0.9, 1.0], 5) == [0, 4, 6, 7, 8]
    assert steady([0.0, 0.5, 0.1, 0.2, 0.4, 1.0], 5) == [0, 2, 3, 4, 5]
    assert steady([0.0, 0.0, 0.0, 0.0, 1.0], 3) == [0, 2, 4]  # nothing rises: the middle of the gap


def test_a_real_gradient_repeats_nothing_and_comes_nearer(e: Engine) -> None:
    ends = ("I went looking for adventure.", "The dog is sleeping in the garden.")
    start, end = e.encode(ends, "eng_Latn")
    path = e.gradient(*ends, 6, "eng_Latn")
    assert path == gradients(e.space, [(start, end)], "eng_Latn", 6)[0]
    assert (path[0], path[-1]) == tuple(e.decode(e.encode(ends, "eng_Latn"), "eng_Latn"))
    assert len(set(path)) == 6
    closeness = concepts.cosine(e.encode(path, "eng_Latn"), end)[:, 0]
    assert (closeness[1:] > closeness[:-1]).all()
