#!/usr/bin/env bash
# Document 003's get_token.sh: prints an access token. The document's asks Supabase; this asks `maru token`.
set -euo pipefail
exec "${MARU:-maru}" token --sub "${1:-tester}"
