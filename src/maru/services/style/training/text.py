"""From a lexicon to a text matcher that has been measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from maru.services.style.calibration import Calibration, fit
from maru.services.style.matching.matcher import VOCABULARY, WEIGHTS, TextMatcher
from maru.services.style.matching.ngrams import ngrams
from maru.services.style.training.errors import TrainerUnavailable
from maru.services.style.training.evaluation import Array, Figures, figures
from maru.services.style.training.lexicon import Lexicon, Sentences, sentences
from maru.services.style.training.progress import Progress

FOLDS = 5
EACH = 6
"""Sentences with a descriptor, in training."""
PENALTY = 0.3
"""scikit-learn's C."""
FREE = 20.0
"""How much less than the weights the bias is penalised: what stands for words that nobody listed is to be no style."""
RARE = 2
"""Pieces of fewer texts are not learnt."""

HELD_OUT: Mapping[str, tuple[bool, bool, int]] = {
    "known words in new sentences": (False, True, 1),
    "new words in known sentences": (True, False, 4),
    "new words in new sentences": (True, True, 4),
}
"""What is measured: whether the descriptors and whether the templates were held out, and sentences a descriptor."""
CALIBRATED = ("known words in new sentences", "new words in new sentences")
"""By both, about as many of one as of the other: it is not known which of them people will write."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedText:
    """The matcher has its calibration in its weights, and learnt from the whole lexicon; `measured` are matchers that
    learnt from parts of it, on the other parts."""

    styles: tuple[str, ...]
    vocabulary: list[str]
    weights: Array
    bias: Array
    measured: Mapping[str, Figures]

    @property
    def matcher(self) -> TextMatcher:
        return TextMatcher(self.vocabulary, self.weights.astype(np.float32), self.bias.astype(np.float32))

    def write(self, folder: Path) -> None:
        """The matcher's two files."""
        save_file({"weights": self.weights, "bias": self.bias.astype(np.float32)}, folder / WEIGHTS)
        (folder / VOCABULARY).write_text(json.dumps(self.vocabulary, ensure_ascii=False), "utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    """Before calibration."""

    vocabulary: list[str]
    weights: Array
    bias: Array

    def answers(self, texts: Sequence[str]) -> Array:
        return TextMatcher(self.vocabulary, self.weights, self.bias).answers(texts)[0]


def train(lexicon: Lexicon, seed: int, progress: Progress) -> TrainedText:
    """Each descriptor and each template is held out once, in one of the folds. The figures of a fold are of a matcher
    that was calibrated on the other folds. TrainerUnavailable without scikit-learn."""
    styles = lexicon.styles
    parts: list[dict[str, tuple[Array, list[int]]]] = []
    for fold in range(FOLDS):
        progress("folds", fold, FOLDS)
        parts.append(_fold(lexicon, fold, seed))
    progress("folds", FOLDS, FOLDS)
    measured = {name: _measured(parts, name) for name in HELD_OUT}
    progress("matcher", 0, 1)
    learnt = _learn(sentences(lexicon.descriptors, lexicon.templates, EACH, seed), styles)
    calibration = _calibrated(parts)
    progress("matcher", 1, 1)
    weights = (learnt.weights * calibration.scale).astype(np.float16)
    bias = learnt.bias * calibration.scale + np.array(calibration.offsets, np.float32)
    return TrainedText(styles, learnt.vocabulary, weights, bias, measured)


def _fold(lexicon: Lexicon, fold: int, seed: int) -> dict[str, tuple[Array, list[int]]]:
    """What a matcher that learnt from the rest answers to what was held out, and the truth."""
    words, templates = lexicon.split(fold, FOLDS), lexicon.templates.split(fold, FOLDS)
    learnt = _learn(sentences(words[0], templates[0], EACH, seed + fold), lexicon.styles)
    found = {}
    for name, (new_words, new_templates, each) in HELD_OUT.items():
        asked = sentences(words[new_words], templates[new_templates], each, seed + FOLDS + fold)
        found[name] = learnt.answers(asked.texts), labels_of(asked, lexicon.styles)
    return found


def _learn(taught: Sentences, styles: Sequence[str]) -> _Learnt:
    """A logistic regression a style, on the pieces that a text has: that style against all else, so that a text may
    speak of two."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    except ImportError:
        raise TrainerUnavailable('training needs scikit-learn: pip install "maru[style]"') from None
    pieces = TfidfVectorizer(analyzer=ngrams, binary=True, norm=None, min_df=RARE)
    seen = pieces.fit_transform(taught.texts)
    truth = np.asarray(taught.styles)
    models = [
        LogisticRegression(C=PENALTY, solver="liblinear", intercept_scaling=FREE).fit(seen, truth == style)
        for style in styles
    ]
    weights = np.concatenate([model.coef_ for model in models]).T * pieces.idf_[:, None]
    return _Learnt(
        vocabulary=pieces.get_feature_names_out().tolist(),
        weights=np.ascontiguousarray(weights, np.float32),
        bias=np.concatenate([model.intercept_ for model in models]).astype(np.float32),
    )


def labels_of(found: Sentences, styles: Sequence[str]) -> list[int]:
    """The places of their styles; that of none comes after the last."""
    places = {style: place for place, style in enumerate(styles)}
    return [places.get(style, len(styles)) for style in found.styles]


def _calibrated(parts: Sequence[Mapping[str, tuple[Array, list[int]]]]) -> Calibration:
    answers = np.concatenate([part[name][0] for part in parts for name in CALIBRATED])
    return fit(answers, [label for part in parts for name in CALIBRATED for label in part[name][1]])


def _measured(parts: Sequence[Mapping[str, tuple[Array, list[int]]]], name: str) -> Figures:
    evidence, labels = [], []
    for fold, part in enumerate(parts):
        calibration = _calibrated([other for place, other in enumerate(parts) if place != fold])
        evidence.append(calibration(part[name][0]))
        labels += part[name][1]
    return figures(np.concatenate(evidence), labels)


def described(trained: TrainedText) -> dict[str, Any]:
    """The figures for a manifest."""
    return {name: found.written() for name, found in trained.measured.items()}
