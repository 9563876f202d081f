"""The hidden truth: drawn from its ranges, the same for the same seed, apart for every part."""

import numpy as np
import pytest

from nuebar.chain.run_file import load_run_file
from nuebar.chain.truth import Truth, auxiliary_centres, draw_truth, part_seed


@pytest.fixture(scope="module")
def run():
    return load_run_file()


def test_truth_follows_its_ranges(run):
    drawn = [draw_truth(run, seed) for seed in range(400)]
    for name, prior in run.simulate.truth.oscillation.items():
        pulls = (np.array([t.oscillation[name] for t in drawn]) - prior.value) / prior.sigma
        assert abs(pulls.mean()) < 4 / 20, name
        assert abs(pulls.std() - 1) < 4 / np.sqrt(800), name
    for name, ends in run.simulate.truth.response.items():
        x = np.array([t.response[name] for t in drawn])
        assert ends.low <= x.min() < ends.low + 0.05 * (ends.high - ends.low), name
        assert ends.high >= x.max() > ends.high - 0.05 * (ends.high - ends.low), name


def test_same_seed_same_truth_and_files_keep_it(run, tmp_path):
    one = draw_truth(run, 7)
    one.save(tmp_path / "truth.json")
    assert Truth.load(tmp_path / "truth.json") == draw_truth(run, 7)
    assert draw_truth(run, 8) != one


def test_inverted_ordering_has_a_negative_splitting(run):
    inverted = load_run_file(None, {"fit.ordering": "inverted"})
    assert draw_truth(inverted, 3).oscillation["dm2_31_eV2"] == -draw_truth(run, 3).oscillation["dm2_31_eV2"]


def test_centres_scatter_around_the_truth_and_know_nothing_of_each_other():
    widths = {"a": (0.0, 0.02), "b": (2.45, 0.147)}
    drawn = [auxiliary_centres(widths, {"a": 0.1}, seed) for seed in range(400)]
    a, b = (np.array([d[n] for d in drawn]) for n in "ab")
    assert abs(((a - 0.1) / 0.02).mean()) < 4 / 20
    assert abs(((b - 2.45) / 0.147).std() - 1) < 4 / np.sqrt(800)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / 20
    alone = auxiliary_centres({"b": widths["b"]}, {}, 5)
    assert alone["b"] == drawn[5]["b"]


def test_parts_have_seeds_of_their_own():
    seeds = {part_seed(1, word) for word in ("stream", "calibration", "monte-carlo", "reference", "tune")}
    assert len(seeds) == 5
    assert 1 not in seeds
    assert part_seed(1, "stream") != part_seed(2, "stream")
