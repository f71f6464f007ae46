#!/bin/sh
# Makes the starter again: model.onnx, metadata.json and report.md, beside this file.
set -eu
cd "$(dirname "$0")"
exec maru train forecast btc_usd_hourly_coinbase_2024.csv --output .
