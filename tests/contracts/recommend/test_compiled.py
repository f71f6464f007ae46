"""No request waits for a compiler: whatever is asked has been compiled when the model is warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def main(folder: Path, compiled: Path) -> None:
    """Prints how many kinds of arguments each compiled function knew when the model was warm, and knows after."""
    from maru.engine.model import Prepared
    from maru.services.recommend.bundles import Bundles
    from maru.services.recommend.model import RecommenderModel, limits
    from maru.services.recommend.queries import ask_for, choice
    from maru.services.recommend.schemas import RecommendRequest

    spec = RecommenderModel.spec("recommend", Bundles(folder).open("v1"), limits(30.0), compiled)
    model = spec.load()
    assert isinstance(model, RecommenderModel)
    model.warm()
    warm = _known()
    events = [{"aid": 1001 + n % 50, "ts": n, "type": ("clicks", "carts", "orders")[n % 3]} for n in range(300)]
    for some in ([], events[:1], events[:7], events, [{**events[0], "aid": -5}]):
        for options in (
            {}, {"top_k": 1}, {"top_k": 1000}, {"explain": True, "top_k": 300}, {"exclude": [1003, 7]},
            {"include": [1001, 1060, 7]}, {"categories": [0, 1, 99]}, {"weights": {"orders": 1}},
            {"include": [7]}, {"exclude": [1003], "include": [1003, 1005], "categories": [1], "explain": True},
        ):  # fmt: skip
            request = RecommendRequest.model_validate({"session_id": 1, "events": some, **options})
            (ready,) = model.prepare([ask_for(choice(request), request.events)])
            assert isinstance(ready, Prepared)
            model.predict([ready.value])
    for session in (1, 2, 10**9):
        model.index.session_vector(session)
        model.index.item_vector(1000 + session)
    print(json.dumps([warm, _known()]))


def _known() -> dict[str, int]:
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("maru.services.recommend.core"):
            for key, value in vars(module).items():
                if hasattr(value, "signatures") and hasattr(value, "py_func"):
                    found[f"{name}.{key}"] = len(value.signatures)
    return found


def test_whatever_is_asked_was_compiled_before(shop: Path, compiled: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(shop), str(compiled)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    warm, after = json.loads(run.stdout)
    assert sum(warm.values()) >= 3, "there are compiled functions at all"
    assert after == warm


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
