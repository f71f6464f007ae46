"""sentence-transformers' own vectors in fp32: `reference.py MODEL_DIR TARGET.npy`, JSON list on stdin."""

from __future__ import annotations

import json
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
np.save(sys.argv[2], model.encode(json.load(sys.stdin), normalize_embeddings=True, show_progress_bar=False))
