"""Records what sentence-transformers makes of texts.json with all-MiniLM-L6-v2, into minilm.npz.

    python tests/reference/record_minilm.py FOLDER_OF_THE_MODEL

In an environment with torch 2.13.0, sentence-transformers 6.2.0 and transformers 5.23.0, which made the
committed file. Vectors are stored as float16: rounding moves their cosines by less than 1e-6.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
import transformers

HERE = Path(__file__).parent


def main(folder: str) -> None:
    torch.set_num_threads(1)
    texts = json.loads((HERE / "texts.json").read_text())
    model = sentence_transformers.SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    ids = [model.preprocess([text])["input_ids"][0].tolist() for text in texts]
    vectors = np.concatenate([model.encode([text]) for text in texts])
    np.savez_compressed(
        HERE / "minilm.npz",
        vectors=vectors.astype(np.float16),
        ids=np.concatenate(ids).astype(np.uint16),
        lengths=np.array([len(each) for each in ids], np.uint16),
        versions=np.array([torch.__version__, sentence_transformers.__version__, transformers.__version__]),
    )
    print(len(texts), "texts of", min(map(len, ids)), "to", max(map(len, ids)), "tokens")


if __name__ == "__main__":
    main(sys.argv[1])
