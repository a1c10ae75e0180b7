"""What stands in front of the same worker in `make bench-http`: the gateway, nginx and HAProxy."""

import os
import socket
import subprocess
import time
from pathlib import Path

from gateway import write_function


def deploy_upstream(gateway, folder, name, scaling):
    """Deploys Benchmarks/upstream.c as a function."""
    program = folder / name
    write_function(program, name, spec=f"command: [server]\nscaling: {scaling}\n")
    subprocess.check_call(["gcc", "-O2", "-o", str(program / "server"), str(Path(__file__).with_name("upstream.c"))])
    gateway.cli("deploy", str(program))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, seconds=30):
    """Waits until something listens; fails when the process ends first."""
    for _ in range(int(seconds * 20)):
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit(f"{process.args[0]} did not listen within {seconds} s")


class FrontEnd:
    """A process, and those it started, that answers on a port of loopback."""

    def __init__(self, name, process, port, path="/"):
        self.name = name
        self.process = process
        self.port = port
        self.path = path

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    def pids(self):
        """The process and its children; not the children of the gateway, which are workers."""
        if self.name == "hearth":
            return [self.process.pid]
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def pss_bytes(self):
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        self.process.terminate()
        self.process.wait()


def start_nginx(folder, upstream, workers):
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; user root; worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "worker_rlimit_nofile 65536; events { worker_connections 32768; }\n"
        "http { access_log off; keepalive_requests 100000000; client_max_body_size 100m;\n"
        "  proxy_request_buffering off;\n"
        f"  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;\n"
        f"  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"  upstream worker {{ server unix:{upstream}; keepalive 1024; keepalive_requests 100000000; }}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://worker;\n"
        '    proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
    )
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(folder)])
    wait_for_port(port, process)
    return FrontEnd("nginx", process, port)


def start_forwarder(upstream):
    """Bytes alone over SwiftNIO: what no proxy on it can go below."""
    port = free_port()
    program = Path(__file__).parents[1] / ".build/release/Forwarder"
    process = subprocess.Popen([program, upstream, str(port)])
    wait_for_port(port, process)
    return FrontEnd("NIO, bytes only", process, port)


def start_haproxy(folder, upstream, threads):
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread {threads}\n  maxconn 9500\n"
        "defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n"
        "  timeout http-keep-alive 600s\n  http-reuse always\n"
        f"frontend in\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend worker\n"
        f"backend worker\n  server w unix@{upstream} pool-max-conn 2048\n"
    )
    process = subprocess.Popen(["haproxy", "-f", str(config)], stderr=subprocess.DEVNULL)
    wait_for_port(port, process)
    return FrontEnd("haproxy", process, port)
