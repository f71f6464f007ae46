"""Palettes by OpenCV's k-means in Lab, the way it is usually done: run by `bench.style_image` in OpenCV's environment.

python opencv_palette.py COUNTS SEEDS FILE...     JSON: file to count to a list of palettes in sRGB, one a seed
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIDE = 128
STOP = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)


def palettes(file: Path, count: int, seeds: int) -> tuple[list[list[list[int]]], list[float]]:
    """One a seed, the colour of the largest cluster first, and what each took in milliseconds."""
    image = Image.open(file)
    image.draft("RGB", (2 * SIDE, 2 * SIDE))
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    found, took = [], []
    for seed in range(seeds):
        cv2.setRNGSeed(seed)
        began = time.perf_counter()
        points = cv2.cvtColor(np.asarray(image, np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
        _, labels, centers = cv2.kmeans(points, count, None, STOP, 3, cv2.KMEANS_PP_CENTERS)
        order = np.argsort(-np.bincount(labels.ravel(), minlength=count))
        colors = cv2.cvtColor(centers[order][None], cv2.COLOR_LAB2RGB)[0]
        took.append(1000 * (time.perf_counter() - began))
        found.append(np.clip(np.rint(colors * 255), 0, 255).astype(int).tolist())
    return found, took


def main() -> None:
    cv2.setNumThreads(1)
    counts, seeds, *files = sys.argv[1:]
    made = {
        file: {count: palettes(Path(file), int(count), int(seeds)) for count in counts.split(",")} for file in files
    }
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
