"""The samples of deploy/: proxies in front of the server, units of systemd, the manifest."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from support.process import DEADLINE, Process
from support.server import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
HERE = Path(__file__).parent
SERVER_OPTIONS = ["--health-path", "/healthz", "--timeout-keep-alive", "75", "--forwarded-allow-ips", "*"]


def program(name):
    """The path of a program that is often not in everyone's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"there is no {name}: apt-get install {name}")
    return found


def sample(name, *changes):
    """A sample with pieces replaced that must be there."""
    text = (DEPLOY / name).read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for_answer(url):
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.02)


@contextlib.contextmanager
def answering(command, folder, port):
    """A proxy while it runs, from its first answer on; what it said is shown with a failure."""
    process = Process(command, folder)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/")
        yield
    finally:
        process.kill()
        print(process.text)


over_both = pytest.mark.parametrize("server", ["tcp", "unix"], indirect=True)


@pytest.fixture
def server(request, tmp_path):
    """The server on TCP or a Unix socket; (process, host:port or path)."""
    path = tmp_path / "s"
    where = ["--uds", str(path)] if request.param == "unix" else ["--port", "0"]
    command = [sys.executable, "-m", "bolide", "app:app", "--lifespan", "off", *where, *SERVER_OPTIONS]
    process = Process(command, HERE)
    try:
        found = process.wait_for(r"running on (?:http://|unix socket )(\S+)")[1]
        yield process, found, request.param
    finally:
        process.kill()


@pytest.fixture
def nginx(server, tmp_path):
    binary = program("nginx")
    _, where, kind = server
    port = free_port()
    upstream = f"unix:{where}" if kind == "unix" else where
    changes = [("unix:/run/bolide.sock", upstream), ("listen 80;", f"listen 127.0.0.1:{port};")]
    (tmp_path / "site.conf").write_text(sample("nginx.conf", *changes))
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; user root; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {temporary} include {tmp_path}/site.conf; }}\n"
    )
    command = [binary, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    with answering(command, tmp_path, port):
        yield port


@pytest.fixture
def haproxy(server, tmp_path):
    binary = program("haproxy")
    _, where, kind = server
    port = free_port()
    text = sample("haproxy.cfg", ("bind :80", f"bind 127.0.0.1:{port}"))
    lines = {"tcp": "server one 127.0.0.1:8000", "unix": "server two unix@/run/bolide.sock"}
    other = lines["unix" if kind == "tcp" else "tcp"]
    new = f"server one {where}" if kind == "tcp" else f"server two unix@{where}"
    text = text.replace(other, "").replace(lines[kind], new)
    assert new in text
    (tmp_path / "haproxy.cfg").write_text(text)
    with answering([binary, "-db", "-f", str(tmp_path / "haproxy.cfg")], tmp_path, port):
        yield port


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request, server):
    """The port of a proxy in front of the server."""
    return request.getfixturevalue(request.param)


@over_both
def test_requests_through_a_proxy(proxy):
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy}", trust_env=False, timeout=DEADLINE) as client:
        for number in range(50):
            seen = client.get(f"/{number}", headers={"X-Forwarded-Proto": "https"}).json()
            assert seen["path"] == f"/{number}"
            assert seen["scheme"] == "http", "the proxy says how it was asked, not the client"
            assert seen["client"][0] == "127.0.0.1"
        for size in (0, 1, 70_000, 3_000_000):
            body = os.urandom(size)
            assert client.post("/", content=body).content == body
        assert client.post("/", content=iter([b"a" * 1000, b"b" * 1000])).content == b"a" * 1000 + b"b" * 1000
        assert client.head("/").status_code == 200
        assert client.get("/healthz").text == "ok\n"


@over_both
def test_websockets_through_a_proxy(proxy):
    connect = pytest.importorskip("websockets.sync.client").connect
    with connect(f"ws://127.0.0.1:{proxy}/", proxy=None) as websocket:
        for number in range(20):
            websocket.send(str(number))
            assert websocket.recv(DEADLINE) == f"echo {number}"


@over_both
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_connections_to_the_server_are_kept(request, server, kind):
    port = request.getfixturevalue(kind)
    process, _, _ = server
    with httpx.Client(trust_env=False) as client:
        for _ in range(20):
            client.get(f"http://127.0.0.1:{port}/counted")
        process.wait_for("GET /counted", 20)
    clients = set(re.findall(r'(\S*) - "GET /counted', process.text))
    assert len(clients) <= 2, clients


def test_units_of_systemd(tmp_path):
    """On units whose program is there: its path is the one thing that is each host's own."""
    analyze = program("systemd-analyze")
    found = re.search(r"ExecStart=(\S+)", (DEPLOY / "bolide.service").read_text())[1]
    (tmp_path / "bolide.service").write_text(sample("bolide.service", (found, sys.executable)))
    shutil.copy(DEPLOY / "bolide.socket", tmp_path)
    units = [str(tmp_path / "bolide.service"), str(tmp_path / "bolide.socket")]
    result = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=50)
    ours = [line for line in result.stderr.splitlines() if "bolide" in line]
    assert result.returncode == 0, result.stderr
    assert ours == []


def commands():
    """The server's options in each sample."""
    service = (DEPLOY / "bolide.service").read_text()
    yield "bolide.service", re.search(r"ExecStart=\S+ (.+)", service)[1].split()
    docker = (DEPLOY / "Dockerfile").read_text()
    yield "Dockerfile", re.findall(r'"([^"]*)"', docker[docker.rindex("CMD") :])[1:]
    yaml = pytest.importorskip("yaml")
    deployment = next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    yield "kubernetes.yaml", deployment["spec"]["template"]["spec"]["containers"][0]["args"][1:]


def test_the_options_in_the_samples_are_ours():
    from bolide.cli import make_parser

    for name, arguments in commands():
        parsed = make_parser().parse_args(arguments)
        assert parsed.timeout_graceful_shutdown > 0, name
        assert parsed.timeout_keep_alive == 75, name


def test_the_manifest_fits_together():
    yaml = pytest.importorskip("yaml")
    documents = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    assert {kind: one["apiVersion"] for kind, one in documents.items()} == {
        "Deployment": "apps/v1",
        "Service": "v1",
        "PodDisruptionBudget": "policy/v1",
    }
    deployment = documents["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == documents["Service"]["spec"]["selector"]
    assert labels == documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert documents["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"]
    (container,) = pod["containers"]
    arguments = container["args"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["http"]) == arguments[arguments.index("--port") + 1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == arguments[arguments.index("--health-path") + 1]
        assert container[probe]["httpGet"]["port"] in ports
    drain = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    graceful = int(arguments[arguments.index("--timeout-graceful-shutdown") + 1])
    assert drain + graceful < pod["terminationGracePeriodSeconds"]
