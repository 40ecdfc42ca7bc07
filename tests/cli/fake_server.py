"""A server of OpenAI's API that says what a test wants it to say."""

import http.server
import json
import threading


def event(delta, **more):
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def says(text):
    """Events of an answer in two pieces."""
    half = len(text) // 2
    return [event({"role": "assistant", "content": ""}), event({"content": text[:half]}), event({"content": text[half:]}),
            event({}, finish_reason="stop")]


def calls(*named, text=""):
    """Events of an answer that calls tools: (name, arguments), the arguments cut in two."""
    events = [event({"role": "assistant", "content": text})]
    for i, (name, arguments) in enumerate(named):
        whole = arguments if isinstance(arguments, str) else json.dumps(arguments)
        half = len(whole) // 2
        events.append(event({"tool_calls": [{"index": i, "id": f"call_{i}", "type": "function",
                                             "function": {"name": name, "arguments": whole[:half]}}]}))
        events.append(event({"tool_calls": [{"index": i, "function": {"arguments": whole[half:]}}]}))
    return [*events, event({}, finish_reason="tool_calls")]


class FakeServer:
    """`answers`: for each request the events of its answer; or a function that writes it by itself."""

    def __init__(self, *answers, models=("one",)):
        self.answers, self.asked, self.headers = list(answers), [], []
        self.gone = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def whole(self, status, body, kind="application/json", headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in [("Content-Type", kind), ("Content-Length", len(data)), *headers]:
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            def begin_events(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True

            def event(self, data):
                self.wfile.write(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")
                self.wfile.flush()

            def do_GET(self):
                outer.headers.append(dict(self.headers))
                self.whole(200, {"object": "list", "data": [{"id": name} for name in models]})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.headers.append(dict(self.headers))
                outer.asked.append(json.loads(body))
                answer = outer.answers.pop(0)
                if callable(answer):
                    return answer(self)
                self.begin_events()
                for data in answer:
                    self.event(data)
                self.event(b"[DONE]")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
