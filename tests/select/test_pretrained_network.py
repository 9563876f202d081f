"""The network that ships: its size, its description, and its efficiency on pairs that are made anew."""

import numpy as np
import pytest

from nuebar.cli import main
from nuebar.io.events import EventFile
from nuebar.select.classifier import score_in_chunks
from nuebar.select.features import PAIR_COLUMNS, features_of
from nuebar.select.network import HIDDEN
from nuebar.select.store import MODELS, describe_classifier, load_classifier


@pytest.fixture(scope="module")
def about():
    return describe_classifier("network")


@pytest.fixture(scope="module")
def network():
    return load_classifier("network")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Antineutrino and accidental pairs of another seed than the training's."""
    folder = tmp_path_factory.mktemp("fresh")
    ibd = ("ibd", "--pairs", "20000", "--seed", "77", "--out", folder / "ibd")
    words = ("singles", "--events", "0", "--pairs", "200000", "--window-ms", "2", "--cascades", "20000", "--seed", "77")
    for command in (ibd, (*words, "--out", folder / "singles")):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", *map(str, command), "--jobs", "1"])
        assert not ended.value.code
    return (
        EventFile(str(folder / "ibd" / "ibd"), PAIR_COLUMNS).read(),
        EventFile(str(folder / "singles" / "accidentals"), PAIR_COLUMNS).read(),
    )


def test_it_is_small_and_tells_how_it_was_made(about):
    assert sum(p.stat().st_size for p in MODELS.iterdir()) <= 1_000_000
    assert tuple(about["settings"]["hidden"]) == HIDDEN == (96, 240, 240)
    assert about["training"]["weights"] == 82_417  # arXiv:2406.12901
    assert about["training"]["command"].startswith("nuebar select train --recipe network")
    assert about["training"]["rows"]["accidentals"]["test"] >= 7_000_000


@pytest.mark.slow
def test_fresh_pairs_have_the_efficiency_of_its_description(network, about, fresh):
    pairs = fresh[0]
    exists = (pairs["prompt_e_rec_MeV"] >= 0.7) & (pairs["delayed_e_rec_MeV"] >= 0.7) & (pairs["dt_ns"] < 2e6)
    score = score_in_chunks(network, features_of({name: v[exists] for name, v in pairs.items()}))
    for point in ("cuts", "cuts-0.1", "cuts-0.01"):
        told = about["metrics"]["points"][point]
        kept = np.mean(score >= told["threshold"])
        error = np.sqrt(kept * (1 - kept) / score.size)
        assert abs(kept - told["efficiency"]["value"]) < 4 * error, point


@pytest.mark.slow
def test_fresh_accidentals_are_refused_and_the_output_is_a_logit(network, fresh):
    signal, background = (score_in_chunks(network, features_of(p)) for p in fresh)
    told = describe_classifier("network")["metrics"]["points"]["cuts"]
    expected = told["background"]["value"] * background.size
    assert np.count_nonzero(background >= told["threshold"]) < expected + 5 * np.sqrt(expected) + 1
    # Odds of signal against background are 1 on average over the background; large ones cut off, less.
    assert np.mean(np.exp(np.minimum(background, 2.0))) < 1.0
    assert np.median(signal) > 10 > -10 > np.median(background)
