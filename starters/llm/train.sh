#!/bin/sh
# Makes the starter again: austen-3m.gguf, report.md and training.jsonl, beside this file. Needs torch: LLM_PYTHON.
set -eu
cd "$(dirname "$0")"
exec maru train llm austen --name austen-3m --threads 1 --output .
