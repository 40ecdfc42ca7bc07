"""A hub on this machine that serves repositories from memory and misbehaves as it is told."""

import hashlib
import http.server
import json
import re
import threading
import urllib.parse


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def commit_of(word):
    return hashlib.sha1(word.encode()).hexdigest()


class Repo:
    def __init__(self, files, large=("gguf", "safetensors")):
        self.files = dict(files)
        self.large = large
        self.commits = {"main": commit_of("main")}

    def siblings(self):
        out = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
            if name.endswith(self.large):
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
            out.append(entry)
        return out


class Hub:
    """`hook(handler, kind, name)` sees every request first and returns True when it has answered."""

    def __init__(self, **repos):
        self.repos = {name.replace("__", "/"): repo for name, repo in repos.items()}
        self.ranges = True
        self.change_listing = None
        self.hook = None
        self.requests = []  # (kind, name, headers)
        self.bytes_sent = 0
        self.lock = threading.Lock()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two packets

            def do_GET(self):
                hub.answer(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that went away
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def requests_of(self, kind):
        return [entry for entry in self.requests if entry[0] == kind]

    def answer(self, handler):
        path = urllib.parse.urlsplit(handler.path).path
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path)
        kind = "list" if api else "file" if file else "other"
        name = urllib.parse.unquote((api or file).group((1 if api else 3)) if api or file else path)
        with self.lock:
            self.requests.append((kind, name, dict(handler.headers)))
        if self.hook and self.hook(handler, kind, name):
            return
        if api and name in self.repos:
            repo = self.repos[name]
            revision = urllib.parse.unquote(api.group(2))
            commit = repo.commits.get(revision, revision if revision in repo.commits.values() else None)
            if commit is None:
                self.send(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
                return
            listing = {"id": name, "sha": commit, "siblings": repo.siblings()}
            if self.change_listing:
                self.change_listing(listing)
            self.send(handler, 200, json.dumps(listing).encode())
        elif file and file.group(1) in self.repos and name in self.repos[file.group(1)].files:
            self.send_file(handler, self.repos[file.group(1)].files[name])
        else:
            self.send(handler, 404, b"nothing here")

    def send(self, handler, status, body=b"", fields=None):
        handler.send_response(status)
        for field, value in (fields or {}).items():
            handler.send_header(field, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        self.write(handler, body)

    def write(self, handler, body):
        handler.wfile.write(body)
        with self.lock:
            self.bytes_sent += len(body)

    def range_of(self, handler, data):
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        return (int(found[1]), int(found[2]) + 1) if found else (0, len(data))

    def send_file(self, handler, data, etag=None, short=0):
        """`short`: so many bytes fewer than the head tells, then the connection ends."""
        etag = etag or f'"{sha256(data)}"'
        begin, end = self.range_of(handler, data)
        wanted = "Range" in handler.headers and handler.headers.get("If-Range", etag) == etag
        if not (self.ranges and wanted):
            begin, end = 0, len(data)
        handler.send_response(206 if self.ranges and wanted else 200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(end - begin))
        if self.ranges and wanted:
            handler.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        handler.end_headers()
        self.write(handler, data[begin : end - short])
        if short:
            handler.close_connection = True
