#!/usr/bin/env bash
# Document 003's test_api.sh: its four curl lines, as they stand there, against BASE in place of its host and port.
set -euo pipefail
BASE="${BASE:-http://localhost:8000}"

# Health check
curl -fsS "$BASE/health"
echo

# 단일 텍스트 임베딩
curl -fsS -X POST "$BASE/embed" \
  -H "Authorization: Bearer ${JWT_TOKEN}" \
  -H "Content-Type: application/json" \
  -d '{"text": "안녕하세요, 반갑습니다!"}'
echo

# 배치 임베딩
curl -fsS -X POST "$BASE/batch-embed" \
  -H "Authorization: Bearer ${JWT_TOKEN}" \
  -H "Content-Type: application/json" \
  -d '{"texts": ["첫 번째", "두 번째", "세 번째"]}'
echo

# 메트릭 확인
curl -fsS "$BASE/metrics"
