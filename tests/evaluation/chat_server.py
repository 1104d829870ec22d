"""A server of chat completions on 127.0.0.1 that also misbehaves."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat

NONSENSE = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"choices": []}',
    b'{"choices": [{"message": null}]}',
    b"[" * 10**5,
]


class Server(ThreadingHTTPServer):
    """Answers by `rule`, a function of the last message's content; `faults` are what it does instead, request by request.

    `message` are further fields of the message that it answers with, `choice` of the choice, `body` of the whole.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule = lambda text: "Same words. VERDICT: CORRECT"
        self.faults = repeat(None)
        self.message, self.choice, self.body = {}, {}, {}
        self.requests, self.keys, self.paths = [], [], []
        self.at_once, self.most_at_once = 0, 0
        self.slow = 0.5  # seconds
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.at_once, server.most_at_once)
            server.requests.append(request)
            server.keys.append(self.headers.get("Authorization"))
            server.paths.append(self.path)
            fault = next(server.faults)
        try:
            self.answer(fault, request)
        except BrokenPipeError:
            pass
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, fault, request):
        text = self.server.rule(request["messages"][-1]["content"])
        message = {"role": "assistant", "content": text, **self.server.message}
        body = {
            "choices": [{"message": message, "finish_reason": "stop", **self.server.choice}],
            "usage": {"completion_tokens": len(text.split())},
            **self.server.body,
        }
        if fault == "slow":
            time.sleep(self.server.slow)
        if fault == "hang up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers = 200, {}
        if isinstance(fault, int):
            status, body = fault, {"error": {"message": "the server says no"}}
            headers = {"Retry-After": "0.01"} if fault == 429 else {}
        data = fault if isinstance(fault, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass
