"""Uploading, deploying, restarting, and the admin API."""

import concurrent.futures
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from gateway import HEARTH, PATIENCE, write_function


def test_a_restart_serves_what_was_deployed(gateway):
    gateway.deploy("kept")
    gateway.kill()
    gateway.start()
    assert gateway.call("kept", 5).json["input"] == 5
    assert gateway.terminate() == 0
    gateway.start()
    assert gateway.call("kept", 6).json["input"] == 6


VERSIONED = "class Model:\n    def predict(self, input, context):\n        return {version}\n"


def test_a_new_version_takes_over_without_a_failed_request(gateway):
    gateway.deploy("rolling", VERSIONED.format(version=0))
    stop = threading.Event()
    seen = []

    def client():
        while not stop.is_set():
            answer = gateway.call("rolling")
            assert answer.status == 200, answer.body
            seen.append(answer.json)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            for version in range(1, 8):
                gateway.deploy("rolling", VERSIONED.format(version=version))
                assert gateway.call("rolling").json == version, "a deploy that has returned is what answers"
        finally:
            stop.set()
        for future in clients:
            future.result(timeout=60)
    assert len(seen) > 50 * (1 if PATIENCE == 1 else 0)
    rows = json.loads(gateway.cli("versions", "rolling", "--json").stdout)
    assert [row["number"] for row in rows] == list(range(8, 0, -1))
    assert rows[0]["isCurrent"]


def test_a_version_that_does_not_load_leaves_the_old_one(gateway):
    gateway.deploy("careful", VERSIONED.format(version=1))
    gateway.call("careful")
    with pytest.raises(AssertionError, match="broken on purpose"):
        gateway.deploy("careful", "raise ValueError('broken on purpose')\n")
    assert gateway.call("careful").json == 1
    assert len(json.loads(gateway.cli("versions", "careful", "--json").stdout)) == 1


def test_kill_of_the_gateway_at_fifty_random_points_of_a_deploy(gateway, tmp_path):
    """After each restart the old or the new version answers, never neither."""
    rounds = 50 if PATIENCE == 1.0 else 8
    current = 0
    gateway.deploy("durable", VERSIONED.format(version=0))
    generator = random.Random(4)
    for version in range(1, rounds + 1):
        write_function(tmp_path, "durable", VERSIONED.format(version=version))
        deploy = subprocess.Popen(
            [HEARTH, "deploy", str(tmp_path), "--data-dir", gateway.data],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(generator.uniform(0, 0.12 * PATIENCE))
        gateway.kill()
        deploy.communicate(timeout=30)
        acknowledged = deploy.returncode == 0
        gateway.start()
        answer = gateway.call("durable")
        assert answer.status == 200, answer.body
        assert answer.json in ((version,) if acknowledged else (current, version))
        current = answer.json
    assert current > 0, "some deploy must have got through for this to mean anything"
    leftovers = os.listdir(f"{gateway.data}/staging")
    gateway.kill()
    gateway.start()
    assert os.listdir(f"{gateway.data}/staging") == [], leftovers


def test_every_admin_route_needs_the_token(gateway):
    gateway.deploy("guarded")
    routes = [
        ("GET", "/v1/gateway"), ("POST", "/v1/bundles"), ("POST", "/v1/blobs/missing"), ("PUT", f"/v1/blobs/{'0' * 64}"),
        ("GET", "/v1/functions"), ("GET", "/v1/functions/guarded"), ("PUT", "/v1/functions/guarded"),
        ("DELETE", "/v1/functions/guarded"), ("GET", "/v1/functions/guarded/versions"),
        ("GET", "/v1/functions/guarded/policy"), ("PATCH", "/v1/functions/guarded/policy"),
        ("GET", "/v1/functions/guarded/logs"), ("GET", "/v1/workers"), ("GET", "/v1/nothing"), ("GET", "/"),
    ]  # fmt: skip
    for method, path in routes:
        for token in ("", "wrong", gateway.token[:-1], gateway.token + "x"):
            answer = gateway.admin_request(method, path, token=token)
            assert (answer.status, answer.code) == (401, "unauthorized"), f"{method} {path}"
    assert gateway.admin_request("GET", "/v1/nothing").code == "admin_route_not_found"
    assert oct(os.stat(f"{gateway.data}/admin.token").st_mode & 0o777) == "0o600"


def test_one_call_with_curl_uploads_and_one_deploys(gateway, tmp_path):
    write_function(tmp_path / "f", "curled")
    archive = tmp_path / "b.tar.zst"
    subprocess.run(f"tar -C {tmp_path}/f -cf - . | zstd -q -o {archive}", shell=True, check=True)
    answer = gateway.admin_request(
        "POST", "/v1/bundles", archive.read_bytes(), fields={"Content-Type": "application/zstd"}
    )
    assert answer.status == 201
    digest = answer.json["digest"]
    inspected = json.loads(subprocess.check_output([HEARTH, "bundle", "inspect", "--json", str(tmp_path / "f")]))
    assert inspected["digest"] == digest
    answer = gateway.admin_request("PUT", "/v1/functions/curled", json.dumps({"digest": digest}))
    assert (answer.status, answer.json["number"]) == (200, 1)
    assert gateway.call("curled", 1).status == 200
    assert (
        gateway.admin_request("PUT", "/v1/functions/curled", json.dumps({"digest": "0" * 64})).code
        == "bundle_not_found"
    )
    assert gateway.admin_request("PUT", "/v1/functions/curled", "{").code == "admin_request_invalid"
    assert (
        gateway.admin_request("PUT", "/v1/functions/Not-A-Name", json.dumps({"digest": digest})).code == "name_invalid"
    )
    assert gateway.admin_request("POST", "/v1/bundles", b"garbage").code == "archive_corrupt"


def test_a_changed_line_uploads_kilobytes(gateway, tmp_path):
    weights = random.Random(1).randbytes(8 << 20)
    write_function(tmp_path, "heavy", files={"weights.bin": weights})
    gateway.cli("deploy", str(tmp_path))
    blobs = sum(path.stat().st_size for path in Path(gateway.data, "blobs").rglob("*") if path.is_file())
    assert blobs == len(weights)
    write_function(tmp_path, "heavy", VERSIONED.format(version=2))
    gateway.cli("deploy", str(tmp_path))
    assert gateway.call("heavy").json == 2
    assert sum(path.stat().st_size for path in Path(gateway.data, "blobs").rglob("*") if path.is_file()) == blobs
    trees = list(Path(gateway.data, "bundles").glob("*/tree/weights.bin"))
    assert len(trees) == 2 and trees[0].stat().st_ino == trees[1].stat().st_ino


def test_weights_come_from_a_source_with_a_pinned_digest(gateway, tmp_path):
    import hashlib
    import http.server

    weights = random.Random(2).randbytes(3 << 20)
    requests = []

    class Source(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            first = not requests
            requests.append(self.headers.get("range"))
            start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            body = weights[start:]
            self.send_response(206 if start else 200)
            self.send_header("content-length", str(len(body)))
            if start:
                self.send_header("content-range", f"bytes {start}-{len(weights) - 1}/{len(weights)}")
            self.end_headers()
            # The first transfer breaks off in the middle and must be taken up again.
            self.wfile.write(body[: 1 << 20] if first else body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        digest = hashlib.sha256(weights).hexdigest()
        spec = f"files: [{{path: w/a.bin, source: 'http://127.0.0.1:{server.server_port}/a', sha256: {digest}}}]\n"
        handler = "class Model:\n    def predict(self, input, context):\n        return len((context.bundle / 'w/a.bin').read_bytes())\n"
        gateway.deploy("sourced", handler, spec)
        assert gateway.call("sourced").json == len(weights)
        assert requests == [None, f"bytes={1 << 20}-"]
        with pytest.raises(AssertionError, match="another digest"):
            gateway.deploy("wrong", handler, spec.replace(digest, "0" * 64))
    finally:
        server.shutdown()


def test_requirements_are_installed_once_and_a_failure_is_told(gateway, tmp_path):
    wheel = make_wheel(tmp_path)
    files = {"requirements.txt": f"tiny-package @ file://{wheel}\n"}
    spec = "python: {requirements: requirements.txt, preload: [tiny_package]}\n"
    handler = "import tiny_package\nclass Model:\n    def predict(self, input, context):\n        return tiny_package.ANSWER\n"
    gateway.deploy("needs", handler, spec, files)
    assert gateway.call("needs").json == 42
    assert len(os.listdir(f"{gateway.data}/environments")) == 1
    gateway.deploy("needs-too", handler, spec, files)
    assert len(os.listdir(f"{gateway.data}/environments")) == 1
    with pytest.raises(AssertionError, match="requirements could not be installed"):
        gateway.deploy("fails", handler, spec, {"requirements.txt": "tiny-package @ file:///nowhere.whl\n"})
    assert len(os.listdir(f"{gateway.data}/environments")) == 1


def make_wheel(folder):
    """A package of one module, as a wheel, so that no registry is needed."""
    import zipfile

    path = folder / "tiny_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_package.py", "ANSWER = 42\n")
        info = "tiny_package-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_the_cli_tells_what_is_there(gateway):
    assert "No function" in gateway.cli("list").stdout
    gateway.deploy("shown", spec="description: Shows itself.\n")
    gateway.call("shown")
    assert "ready" in gateway.cli("list").stdout
    description = gateway.cli("describe", "shown").stdout
    assert "Shows itself." in description and "keep-alive" in description
    assert json.loads(gateway.cli("describe", "shown", "--json").stdout)["workers"][0]["state"] == "idle"
    assert "w-1" in gateway.cli("workers").stdout
    assert gateway.cli("call", "shown", "-d", "[1]").stdout.strip() == '{"input":[1],"path":"/"}'
    missing = gateway.cli("describe", "show", check=False)
    assert missing.returncode == 1 and "Did you mean 'shown'?" in missing.stderr
    gateway.cli("delete", "shown")
    assert gateway.call("shown").status == 404
    assert gateway.cli("delete", "shown", check=False).returncode == 1
    nobody = subprocess.run([HEARTH, "list", "--data-dir", "/tmp/nobody"], capture_output=True, text=True, check=False)
    assert nobody.returncode == 2 and "hearth serve" in nobody.stderr


def test_logs_follow(gateway):
    gateway.deploy(
        "chatty",
        "class Model:\n    def predict(self, input, context):\n        print('said', input)\n        context.logger.info('logged')\n",
    )
    gateway.call("chatty", 1)
    gateway.wait_for(lambda: "said 1" in gateway.cli("logs", "chatty").stdout, "the first line")
    follower = subprocess.Popen(
        [HEARTH, "logs", "chatty", "-f", "-n", "0", "--data-dir", gateway.data], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.5 * PATIENCE)
    gateway.call("chatty", 2)
    line = follower.stdout.readline()
    follower.send_signal(signal.SIGTERM)
    follower.wait()
    follower.stdout.close()
    assert line.rstrip().endswith("said 2")
    assert "INFO function: logged" in gateway.cli("logs", "chatty").stdout


def test_a_second_gateway_is_kept_out(gateway):
    result = subprocess.run(
        [HEARTH, "serve", "--data-dir", gateway.data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Another gateway" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen", "0.0.0.0:0"], "keys"),
        (["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], "loopback"),
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--config", "/nonexistent.yaml"], "cannot be read"),
    ],
)
def test_what_serve_refuses(tmp_path, arguments, text):
    result = subprocess.run(
        [HEARTH, "serve", "--data-dir", str(tmp_path / "d"), *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and text in result.stderr
