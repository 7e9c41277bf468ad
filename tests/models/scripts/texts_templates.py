CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
ROWS = []
