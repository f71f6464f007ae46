"""Makes a small SigLIP2 with random weights, and records what transformers makes of texts and images with it.

    python tests/reference/make_tiny_siglip.py TARGET

Run by the tests with the interpreter that MARU_REFERENCE_PYTHON names, which has torch and transformers. TARGET gets
a checkpoint as the hub has them, and `reference.npz`: embeddings of length 1, logits, and the pixels of the images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Siglip2Tokenizer, SiglipConfig, SiglipImageProcessorPil, SiglipModel

TEXTS = [
    "모던한 거실에 어울리는 의자", "클래식한 책상", "a", "Modern Living Room", "MINIMAL", "북유럽 스타일 인테리어",
    "a very long sentence about a chair that stands in a living room beside a table and a lamp " * 3, "🙂 emoji",
]  # fmt: skip
SIZE, WINDOW, VOCABULARY = 64, 16, 600


def tokenizer(target: Path) -> Siglip2Tokenizer:
    """BPE as Gemma's, with an end of text."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tok.train_from_iterator([text.lower() for text in TEXTS], trainer)
    tok.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    state = json.loads(tok.to_str())
    made = Siglip2Tokenizer(
        vocab=state["model"]["vocab"], merges=[tuple(merge) for merge in state["model"]["merges"]],
        padding_side="right", model_max_length=WINDOW,
    )  # fmt: skip
    made._tokenizer.post_processor = tok.post_processor
    made.save_pretrained(target)
    return made


def main(target: Path) -> None:
    torch.manual_seed(0)
    common = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**common, "vocab_size": VOCABULARY, "max_position_embeddings": WINDOW, "projection_size": 48,
            "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}  # fmt: skip
    config = SiglipConfig(text_config=text, vision_config={**common, "image_size": SIZE, "patch_size": 16})
    model = SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases are ones and zeros at first and would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(target)
    tok = tokenizer(target)
    look = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=2)
    look.save_pretrained(target)

    chance = np.random.default_rng(0)
    pixels = [chance.integers(0, 256, shape, np.uint8) for shape in ((64, 64, 3), (90, 200, 3), (33, 17, 3))]
    ids = tok(TEXTS, padding="max_length", max_length=WINDOW, truncation=True, return_tensors="pt")["input_ids"]
    seen = look([Image.fromarray(image) for image in pixels], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = model(input_ids=ids, pixel_values=seen)
    np.savez(
        target / "reference.npz",
        ids=ids.numpy(), texts=found.text_embeds.numpy(), images=found.image_embeds.numpy(),
        seen=seen.numpy(), logits=found.logits_per_image.numpy(),
        **{f"pixels{number}": image for number, image in enumerate(pixels)},
    )  # fmt: skip
    (target / "texts.json").write_text(json.dumps(TEXTS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
