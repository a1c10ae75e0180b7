"""A gateway of its own for each test, and small functions to deploy on it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEARTH = os.environ.get("HEARTH_BINARY", str(ROOT / ".build/debug/hearth"))

#: Whether the gateway is built with ThreadSanitizer, under which everything takes several times as long.
SANITIZED = "tsan" in HEARTH
PATIENCE = 6.0 if SANITIZED else 1.0

ECHO = """
class Model:
    def predict(self, input, context):
        return {"input": input, "path": context.path}
"""


class Answer:
    """Status, fields by lower-case name, and body of one response."""

    def __init__(self, status, fields, body):
        self.status = status
        self.fields = {name.lower(): value for name, value in fields}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["error"]["code"]

    @property
    def start(self):
        return self.fields.get("hearth-start")


class Gateway:
    """A running `hearth serve` with a data folder that goes with it."""

    def __init__(self, environment=None, **settings):
        self.environment = environment or {}
        self.data = tempfile.mkdtemp(prefix="hl-", dir="/tmp")
        # Two event loops even on a small machine, so that requests cross between them.
        self.settings = {"event_loops": 2, **settings}
        self.process = None
        self.start()

    def start(self):
        config = Path(self.data) / "hearth.yaml"
        config.write_text(json.dumps({name.replace("_", "-"): value for name, value in self.settings.items()}))
        self.log = open(f"{self.data}/gateway.log", "a")
        suppressions = f"suppressions={ROOT}/Tests/live/tsan-suppressions.txt"
        environment = {**os.environ, "TSAN_OPTIONS": suppressions, **self.environment}
        self.process = subprocess.Popen(
            [HEARTH, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
             "--config", str(config)],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip
        line = self.process.stdout.readline()
        match = re.match(r"hearth listening data=https?://([^:]+):(\d+) admin=http://([^:]+):(\d+)", line)
        assert match, f"the gateway did not start: {line!r} {Path(self.data, 'gateway.log').read_text()}"
        self.address = (match[1], int(match[2]))
        self.admin = (match[3], int(match[4]))
        self.token = Path(self.data, "admin.token").read_text().strip()

    def kill(self):
        """kill -9, as a crash would end it."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30 * PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        report = Path(self.data, "gateway.log").read_text()
        subprocess.run(["chmod", "-R", "u+w", self.data], check=False)
        shutil.rmtree(self.data, ignore_errors=True)
        assert "ThreadSanitizer" not in report, report
        assert "Fatal error" not in report, report

    def cli(self, *arguments, check=True):
        result = subprocess.run(
            [HEARTH, *arguments, "--data-dir", self.data], capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    def deploy(self, name, handler=ECHO, spec="", files=None):
        """Writes a function and deploys it."""
        with tempfile.TemporaryDirectory() as folder:
            write_function(Path(folder), name, handler, spec, files)
            return self.cli("deploy", folder, "--json")

    def request(self, path, body=b"{}", method="POST", fields=None, timeout=30):
        connection = http.client.HTTPConnection(*self.address, timeout=timeout * PATIENCE)
        try:
            given = {"Content-Type": "application/json", **(fields or {})}
            connection.request(method, path, body, given, encode_chunked="Transfer-Encoding" in given)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def call(self, name, value=None, timeout=30, **fields):
        return self.request(f"/functions/{name}", json.dumps(value).encode(), fields=fields, timeout=timeout)

    def admin_request(self, method, path, body=None, token=None, fields=None):
        connection = http.client.HTTPConnection(*self.admin, timeout=60)
        given = {"Authorization": f"Bearer {token if token is not None else self.token}"}
        try:
            connection.request(method, path, body, {**given, **(fields or {})})
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def raw(self, data, timeout=5.0, half_close=False):
        """Sends bytes as they are and returns all that comes back until the connection ends."""
        with socket.create_connection(self.address, timeout=timeout * PATIENCE) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while part := connection.recv(65536):
                    received += part
            except (TimeoutError, ConnectionResetError):
                pass
            return received

    def workers(self):
        return self.admin_request("GET", "/v1/workers").json

    def wait_for(self, condition, what, timeout=15.0):
        """Waits for an event, not for a time; the limit is for what never happens."""
        deadline = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < deadline:
            result = condition()
            if result:
                return result
            time.sleep(0.02)
        raise AssertionError(f"waited in vain for {what}")

    def functions_log(self, name):
        path = Path(self.data, "logs", f"{name}.log")
        return path.read_text() if path.exists() else ""


def write_function(folder, name, handler=ECHO, spec="", files=None):
    folder.mkdir(exist_ok=True)
    entry = "" if "command:" in spec else "handler: handler.py:Model\n"
    (folder / "function.yaml").write_text(f"name: {name}\n{entry}{spec}")
    if entry:
        (folder / "handler.py").write_text(handler)
    for path, content in (files or {}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        if path.endswith(".sh") or path.startswith("bin/"):
            target.chmod(0o755)


def alive(pid):
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
