class DLAPIClient {
  constructor(baseUrl, apiKey) {
    this.baseUrl = baseUrl;
    this.headers = {
      'Authorization': `Bearer ${apiKey}`,
      'Content-Type': 'application/json'
    };
  }

  async inferText(text) {
    const response = await fetch(`${this.baseUrl}/infer`, {
      method: 'POST',
      headers: this.headers,
      body: JSON.stringify({ text })
    });
    return await response.json();
  }

  async streamInfer(text) {
    const response = await fetch(`${this.baseUrl}/stream/infer`, {
      method: 'POST',
      headers: this.headers,
      body: JSON.stringify({ text })
    });

    const reader = response.body.getReader();
    const decoder = new TextDecoder();

    while (true) {
      const { done, value } = await reader.read();
      if (done) break;
      
      const chunk = decoder.decode(value);
      const lines = chunk.split('\n');
      
      for (const line of lines) {
        if (line.startsWith('data: ')) {
          const data = JSON.parse(line.slice(6));
          console.log('Stream data:', data);
        }
      }
    }
  }
}

// 사용 예시
const client = new DLAPIClient('http://localhost:8002', 'your-api-key');
const result = await client.inferText('모던한 거실');
