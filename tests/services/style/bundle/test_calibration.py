from __future__ import annotations

import numpy as np
import pytest

from maru.services.style.calibration import Calibration, fit, probabilities


def drawn(count: int, scale: float, offsets: np.ndarray, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Answers, and labels that are drawn with the probabilities that a calibration by these makes of them."""
    chance = np.random.default_rng(seed)
    answers = chance.normal(0, 3, (count, len(offsets)))
    given = probabilities(answers * scale + offsets)
    return answers, [int(chance.choice(len(offsets) + 1, p=row)) for row in given]


def test_it_finds_what_labels_were_drawn_with():
    answers, labels = drawn(6000, 0.4, np.array([0.0, 0.0, 0.0]))
    found = fit(answers, labels)
    assert found.scale == pytest.approx(0.4, abs=0.04) and len(set(found.offsets)) == 1


def test_with_freedom_each_style_has_its_own_offset():
    answers, labels = drawn(6000, 0.5, np.array([1.5, 0.0, -1.5]))
    found = fit(answers, labels, freedom=1.0)
    one, two, three = found.offsets
    assert one - two == pytest.approx(1.5, abs=0.3) and two - three == pytest.approx(1.5, abs=0.4)


def test_few_examples_hardly_move_the_styles_apart():
    """Both styles were answered alike, and three times it was the first."""
    found = fit(np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [-3, -3]]), [0, 0, 0, 2], freedom=0.1)
    assert 0 < found.offsets[0] - found.offsets[1] < 1


def test_as_much_weight_for_none_as_for_all_styles():
    """However few there are of them, what was answered alike is even."""
    answers = np.zeros((100, 2))
    given = probabilities(fit(answers, [2] * 5 + [0] * 50 + [1] * 45)(answers))
    assert given[0, 2] == pytest.approx(0.5, abs=0.02)


def test_written_and_read():
    calibration = Calibration(0.5, (1.0, -2.0))
    assert Calibration.read(calibration.written(), 2) == calibration
    assert calibration(np.array([[2.0, 2.0]])).tolist() == [[2.0, -1.0]]


@pytest.mark.parametrize(
    "fields",
    [{}, {"scale": 1}, {"scale": 1, "offsets": [1]}, {"scale": 0, "offsets": [1, 2]}, {"scale": -1, "offsets": [1, 2]},
     {"scale": "1", "offsets": [1, 2]}, {"scale": 1, "offsets": [1, None]}, {"scale": float("nan"), "offsets": [1, 2]}],
)  # fmt: skip
def test_what_is_no_calibration(fields):
    with pytest.raises(ValueError, match="calibration"):
        Calibration.read(fields, 2)


def test_answers_on_any_scale():
    """A SigLIP's logits are about 80 for every text, and are told apart by a few."""
    answers, labels = drawn(3000, 0.4, np.zeros(3))
    near, far = fit(answers, labels), fit(answers * 5 + 80, labels)
    assert far.scale == pytest.approx(near.scale / 5, rel=0.02)
    assert np.abs(far(answers * 5 + 80) - near(answers)).max() < 0.2


def test_where_nothing_lacked_a_style_what_was_even_stays_even():
    """Else all scores would be 1, as each example had some style."""
    chance = np.random.default_rng(0)
    labels = [0, 1] * 100
    answers = np.where(np.eye(2)[labels] > 0, 2.0, -2.0) + chance.normal(0, 2, (200, 2))
    found = fit(answers, labels)
    assert found.offsets == (0.0, 0.0) and 0.2 < found.scale < 5
