"""Makes the ONNX files that Infinity's optimum engine needs, from the same weights, without a network.

    infinity_models.py MODEL_DIR FP32_DIR INT8_DIR

fp32 is optimum's own export. int8 is that graph through onnxruntime's dynamic quantisation, as `optimum-
cli onnxruntime quantize --avx512_vnni --per_channel` sets it (per tensor it loses too much), and named as
Infinity looks for it.
"""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import torch.onnx
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig


def main(source: Path, fp32: Path, int8: Path) -> None:
    """Fill both folders."""
    for folder in (fp32, int8):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors", "*.md", ".git*"))
    # optimum 1.24 (the last with BetterTransformer) expects the exporter that torch had then
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    ORTModelForFeatureExtraction.from_pretrained(source, export=True).save_pretrained(fp32)
    quantizer = ORTQuantizer.from_pretrained(fp32, file_name="model.onnx")
    quantizer.quantize(
        save_dir=int8,
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True),
        file_suffix="quantized",
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
