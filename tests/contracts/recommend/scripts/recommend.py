import requests

# 추천 요청
response = requests.post(
    "http://localhost:5000/recommend",
    json={
        "session_id": 12345,
        "events": [{"aid": 1001, "ts": 1659304800, "type": "clicks"}, {"aid": 1002, "ts": 1659304900, "type": "carts"}],
        "top_k": 20,
    },
)

result = response.json()
print(f"Recommendations: {result['recommendations']}")
