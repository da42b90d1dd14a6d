"""A proxy before an MLflow server that passes requests on, answers with errors, loses replies, does not answer, or is gone."""

import http.client
import http.server
import itertools
import socket
import threading
import time


class Proxy(http.server.ThreadingHTTPServer):
    """`mode(count, path)` says what becomes of a request: pass, lose (its reply), hang, or the number of a status."""

    daemon_threads, request_queue_size = True, 64

    def __init__(self, port, to):
        self.to, self.mode, self.count, self.faults = to, lambda count, path: "pass", itertools.count(1), 0
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, address):
        pass

    def end(self):
        """As if the server was killed: its port is closed."""
        self.mode = lambda count, path: "lose"
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.server.mode(next(self.server.count), self.path)
        self.server.faults += mode != "pass"
        self.close_connection = mode != "pass"
        if mode == "hang":
            time.sleep(60)
            return
        if isinstance(mode, int):
            self.reply(mode, {}, b"no")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.to, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        if mode == "lose":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.reply(reply.status, reply.headers, content)

    def reply(self, status, headers, content):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() in ("content-type", "content-disposition"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
