#!/bin/sh
# Makes the bundle and its report again, beside this file. Needs scikit-learn: pip install "maru[style]".
set -eu
cd "$(dirname "$0")"
exec maru train style-text . --output bundle
