"""Servers from the built binary, on ports of their own, and clients that remember what became of each request."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BINARY = pathlib.Path(os.environ.get("JOINTLY_BIN", ROOT / "target/debug/jointly")).resolve()
QUERY = "how long does a hearing aid battery last"
DOCUMENTS = [line for line in (ROOT / "samples/hearing-aids.txt").read_text().splitlines() if line]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds, what):
    """Waits until something holds; what takes longer has failed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} s: {what}")


def request(port, documents=DOCUMENTS, timeout=60, path="/jointly/v1/rerank", body=None, headers=None):
    """Status and answer of a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = body if body is not None else json.dumps({"query": QUERY, "documents": documents})
        connection.request("POST", path, content, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metric(port, name):
    """The sum of a metric over its labels; 0 if it was never counted."""
    lines = get(port, "/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


class Server:
    def __init__(self, *settings, port=None, stdout=None, stderr=None, environment=None, config=None, wrap=()):
        self.port = port or free_port()
        self.settings, self.config = settings, config
        self.stdout, self.stderr, self.environment, self.wrap = stdout, stderr, environment, list(wrap)
        self.start()

    def start(self):
        command = [*self.wrap, str(BINARY), "serve", "--listen", f"127.0.0.1:{self.port}"]
        if self.config:
            command += ["--config", str(self.config)]
        for setting in self.settings:
            command += ["--set", setting]
        self.process = subprocess.Popen(
            command,
            stdout=self.stdout or subprocess.DEVNULL,
            stderr=self.stderr or subprocess.DEVNULL,
            env={**os.environ, **(self.environment or {})},
        )
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            pytest.fail(f"the server ended with {self.process.returncode}")
        try:
            return get(self.port, "/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self, seconds=60):
        until(self.is_ready, seconds, "ready")
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@pytest.fixture
def server():
    """Starts servers; all that still run are ended."""
    servers = []

    def start(*settings, ready=True, **more):
        made = Server(*settings, **more)
        servers.append(made)
        return made.wait_ready() if ready else made

    yield start
    for made in servers:
        made.end()


class Load:
    """Clients that ask again and again, each on one connection that it opens anew when it was closed."""

    def __init__(self, port, clients=8):
        self.port, self.outcomes, self.lock, self.stopped = port, [], threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        connection, asked = None, 0
        while not self.stopped.is_set():
            asked += 1
            documents = [f"{document} {number} {asked}" for document in DOCUMENTS[:4]]
            body = json.dumps({"query": QUERY, "documents": documents})
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", "/jointly/v1/rerank", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
                outcome = answer.status
                if outcome == 200 and len(json.loads(content)["results"]) != 4:
                    outcome = "wrong answer"
            except (OSError, http.client.HTTPException) as error:
                connection = None
                outcome = type(error).__name__
            with self.lock:
                self.outcomes.append(outcome)

    def count(self):
        with self.lock:
            return len(self.outcomes)

    def wait_for(self, more, seconds=60):
        """Waits until so many more requests have come to an end."""
        goal = self.count() + more
        until(lambda: self.count() >= goal, seconds, f"{more} more requests")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a request that never ended"
        return self.outcomes


# What is replaced in the examples of deploy/: where the replicas are, and where the balancer listens.
BALANCERS = {
    "nginx": ("deploy/nginx/jointly.conf", ("127.0.0.1:8787", "127.0.0.1:8788"), "127.0.0.1:{}", "listen 8080;", "listen 127.0.0.1:{};"),
    "envoy": (
        "deploy/envoy/envoy.yaml",
        ("address: 127.0.0.1, port_value: 8787", "address: 127.0.0.1, port_value: 8788"), "address: 127.0.0.1, port_value: {}",
        "address: 0.0.0.0, port_value: 8080", "address: 127.0.0.1, port_value: {}",
    ),
}


@pytest.fixture(params=BALANCERS)
def balancer(request, tmp_path):
    """nginx or Envoy with our own example, on other ports: started before replicas, it answers with its port."""
    processes = []
    path, replicas, replica, stated_listen, stated_as = BALANCERS[request.param]

    def start(*ports):
        listen = free_port()
        text = (ROOT / path).read_text()
        wanted = [*zip(replicas, map(replica.format, ports), strict=True), (stated_listen, stated_as.format(listen))]
        for stated, meant in wanted:
            assert text.count(stated) == 1, stated
            text = text.replace(stated, meant)
        if request.param == "nginx":
            command, is_ready = nginx(tmp_path, text), lambda: connects(listen)
        else:
            config = tmp_path / "envoy.yaml"
            config.write_text(text)
            command = ["envoy", "-c", str(config), "--use-dynamic-base-id", "--log-level", "error", "--concurrency", "1"]
            # It listens before it has asked the replicas how they are.
            is_ready = lambda: connects(listen) and get(listen, "/readyz")[0] == 200
        processes.append(subprocess.Popen(command))
        until(is_ready, 20, f"{request.param} answers")
        return listen

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def nginx(folder, text):
    folders = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}"
        f" http {{ access_log off; {folders} {text} }}"
    )
    return ["nginx", "-c", str(config), "-e", str(folder / "nginx.log")]


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
