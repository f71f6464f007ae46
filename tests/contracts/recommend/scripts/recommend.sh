# 추천 요청
curl -X POST http://localhost:5000/recommend \
  -H "Content-Type: application/json" \
  -d '{
    "session_id": 12345,
    "events": [
      {"aid": 1001, "ts": 1659304800, "type": "clicks"},
      {"aid": 1002, "ts": 1659304900, "type": "carts"}
    ],
    "top_k": 20
  }'
