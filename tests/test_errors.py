"""Sentences for people: none is longer than a screen."""

import pytest

from nuebar.errors import LONGEST, NuebarError


@pytest.mark.parametrize("n", [0, 1, LONGEST - 1, LONGEST])
def test_a_sentence_stays_as_it_is(n):
    assert str(NuebarError("x" * n)) == "x" * n


@pytest.mark.parametrize("n", [LONGEST + 1, 100_000, 3_000_000])
def test_a_long_one_keeps_its_beginning_and_its_end(n):
    told = str(NuebarError(f"model.json: expected features, got {'x' * n}; build it again"))
    assert told.startswith("model.json: expected features, got xxx")
    assert told.endswith("xxx; build it again")
    assert "characters left out" in told
    assert len(told) < LONGEST
    left_out = int(told.split("… (")[1].split()[0])
    assert told.count("x") + left_out == n + "model.json: expected features, got ; build it again".count("x")
