"""The parcel-tracking example, started as its README says and driven from outside."""

import asyncio
import csv
import http.server
import io
import json
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import httpx
import pytest
from support import REPOSITORY, ServerProcess
from support.http_client import wait_until
from support.server import exit_status_of

ADA = {"name": "Ada", "street": "Weg 1", "city": "Bonn", "postcode": "53111"}
MANIFEST = """name,street,city,postcode,country,weight
Grace,Hafenstr. 2,Kiel,24103,DE,1.5
Linus,Katu 3,Espoo,02100,FI,heavy
Edsger,Laan 4,Eindhoven,5612,NL,0.25
,Nirgends 5,Ulm,89073,DE,1
"""


APP = ("fastapi_app.main:app",)
PLACE = {"app_dir": "examples", "cwd": REPOSITORY}


def start(**env: str) -> ServerProcess:
    """Start it by its one line."""
    return ServerProcess(*APP, **PLACE, env=env)


@pytest.fixture
def service(servers) -> Iterator[ServerProcess]:
    """The application, shared by the tests that leave it running."""
    with servers.lend(*APP, **PLACE, env={"PARCELS_HEARTBEAT": "0.05"}) as running:
        yield running


@pytest.fixture
def client(service) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=service.url, timeout=20) as opened:
        yield opened


@pytest.fixture
def code(client) -> str:
    """The tracking code of a new parcel."""
    return book(client)["code"]


def book(client: httpx.Client, **changes: object) -> dict:
    """Book a parcel."""
    answer = client.post("/parcels", json={"recipient": ADA, "weight": "2.5", "depot": "BER", **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


def scan(client: httpx.Client, code: str, status: str, depot: str = "CGN") -> httpx.Response:
    """Report a scan."""
    return client.post(f"/parcels/{code}/scans", json={"status": status, "depot": depot})


# --- models, validation, dependencies -----------------------------------------------------------------------


def test_book_and_read(client):
    answer = client.post("/parcels", json={"recipient": ADA, "weight": "2.5", "depot": "BER"})
    assert answer.status_code == 201
    parcel = answer.json()
    assert re.fullmatch(r"PX[0-9]{8}", parcel["code"])
    assert parcel["recipient"] == {**ADA, "country": "DE"}
    assert (parcel["status"], parcel["weight"], parcel["depot"]) == ("booked", "2.5", "BER")
    assert answer.headers["location"].endswith(f"/parcels/{parcel['code']}")
    assert client.get(answer.headers["location"]).json() == parcel


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["recipient", "weight", "depot"]),
        ({"recipient": ADA, "weight": "-1", "depot": "BER"}, ["weight"]),
        ({"recipient": ADA, "weight": "1", "depot": "Berlin"}, ["depot"]),
        ({"recipient": {**ADA, "postcode": "!"}, "weight": "1", "depot": "BER"}, ["postcode"]),
        ({"recipient": ADA, "weight": "1", "depot": "BER", "fragile": True}, ["fragile"]),
    ],
)
def test_wrong_body_is_explained(client, body, where):
    answer = client.post("/parcels", json=body)
    assert answer.status_code == 422
    assert [error["loc"][-1] for error in answer.json()["detail"]] == where


def test_body_that_is_no_json(client):
    answer = client.post("/parcels", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"


def test_wrong_path_and_unknown_parcel(client):
    assert client.get("/parcels/17").status_code == 422
    answer = client.get("/parcels/PX99999999")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no parcel PX99999999"})
    assert client.get("/nowhere").status_code == 404
    assert client.delete("/parcels").status_code == 405


def test_list_is_filtered_and_paged(client):
    codes = [book(client, depot="ZRH")["code"] for _ in range(5)]
    scan(client, codes[1], "in-transit", "ZRH")
    page = client.get("/parcels", params={"depot": "ZRH", "status": "booked", "limit": 2, "offset": 1}).json()
    assert page["total"] == 4
    assert [parcel["code"] for parcel in page["items"]] == codes[2:4]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "offset=-1", "status=lost", "depot=x", "unknown=1"])
def test_wrong_query_is_refused(client, query):
    assert client.get(f"/parcels?{query}").status_code == 422


def test_scans_and_conflicts(client, code):
    for status in ("in-transit", "out-for-delivery", "delivered"):
        answer = scan(client, code, status)
        assert (answer.status_code, answer.json()["status"]) == (201, status)
    answer = scan(client, code, "in-transit")
    assert answer.status_code == 409
    assert answer.json() == {"detail": "a parcel that is delivered cannot become in-transit"}
    assert [entry["number"] for entry in client.get(f"/parcels/{code}").json()["scans"]] == [1, 2, 3, 4]


def test_scan_of_unknown_parcel(client):
    assert scan(client, "PX99999999", "in-transit").status_code == 404


# --- middleware, documentation, plain text ------------------------------------------------------------------


def test_headers_of_the_middleware(client):
    answer = client.get("/health")
    assert re.fullmatch(r"app;dur=[0-9.]+", answer.headers["server-timing"])
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert client.get("/health", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert client.get("/parcels/17").headers["x-request-id"]


def test_health(client, code):
    answer = client.get("/health")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert re.fullmatch(r"ok, [1-9][0-9]* parcels\n", answer.text)


def test_documentation(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    schema = client.get("/openapi.json").json()
    assert schema["info"]["title"] == "Parcels"
    assert {"/parcels", "/parcels/{code}", "/parcels/{code}/events", "/parcels/manifest", "/quotes"} <= set(
        schema["paths"]
    )
    assert client.get("/redoc").status_code == 200


# --- background tasks ---------------------------------------------------------------------------------------


def test_customer_is_notified(client, code):
    scan(client, code, "in-transit")
    wait_until(lambda: client.get(f"/parcels/{code}/notifications").json(), "the background task ran")
    expected = [{"code": code, "text": f"{code} is in-transit at CGN", "delivered": None}]
    assert client.get(f"/parcels/{code}/notifications").json() == expected


class Webhook(http.server.BaseHTTPRequestHandler):
    """A customer's server, which answers when the test lets it."""

    received: list[dict]
    arrived: threading.Event
    may_answer: threading.Event

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(json.loads(body))
        self.arrived.set()
        assert self.may_answer.wait(20)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def webhook() -> Iterator[tuple[type[Webhook], str]]:
    """A webhook on a free port."""
    handler = type(
        "Handler", (Webhook,), {"received": [], "arrived": threading.Event(), "may_answer": threading.Event()}
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{listening.server_port}/hook"
        handler.may_answer.set()
        listening.shutdown()
        thread.join()


def test_answer_comes_before_the_webhook_is_called(client, webhook):
    """The webhook does not answer yet, so the background task cannot be done; the client has its answer."""
    handler, url = webhook
    code = book(client, notify_url=url)["code"]
    assert scan(client, code, "in-transit").status_code == 201
    assert handler.arrived.wait(20)
    assert client.get(f"/parcels/{code}/notifications").json() == []
    handler.may_answer.set()
    wait_until(lambda: client.get(f"/parcels/{code}/notifications").json(), "the notification is recorded")
    assert client.get(f"/parcels/{code}/notifications").json()[0]["delivered"] is True
    assert handler.received[0]["text"] == f"{code} is in-transit at CGN"


# --- streams ------------------------------------------------------------------------------------------------


def test_export_is_streamed(client):
    for _ in range(250):
        book(client, depot="EXP")
    with client.stream("GET", "/parcels/export") as answer:
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["transfer-encoding"] == "chunked"
        text = "".join(answer.iter_text())
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["depot"] == "EXP"]
    assert len(rows) == 250
    assert rows[0]["name"] == "Ada"


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict]]:
    """The id and data of each event."""
    number = data = None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            number = value
        elif name == "data":
            data = json.loads(value)
        elif not line and data is not None:
            yield number, data
            number = data = None


def test_events_follow_a_parcel(client, code):
    with client.stream("GET", f"/parcels/{code}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = events_of(answer.iter_lines())
        assert next(events)[1]["status"] == "booked"
        for number, status in enumerate(("in-transit", "out-for-delivery", "delivered"), 2):
            scan(client, code, status)
            event_id, event = next(events)
            assert (event_id, event["status"], event["depot"]) == (str(number), status, "CGN")
        assert list(events) == [], "the stream ends with the delivery"


def test_events_resume(client, code):
    for status in ("in-transit", "out-for-delivery", "delivered"):
        scan(client, code, status)
    answer = client.get(f"/parcels/{code}/events", headers={"last-event-id": "2"})
    assert [number for number, _ in events_of(iter(answer.text.split("\n")))] == ["3", "4"]


def test_silent_stream_sends_heartbeats(client, code):
    with client.stream("GET", f"/parcels/{code}/events") as answer:
        lines = answer.iter_lines()
        assert sum(1 for line in (next(lines) for _ in range(12)) if line == ": still here") >= 2


def test_followers_who_leave_are_forgotten(client, code):
    with client.stream("GET", f"/parcels/{code}/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert client.get(f"/parcels/{code}/followers").json() == 1
    wait_until(lambda: client.get(f"/parcels/{code}/followers").json() == 0, "the stream was given up")


def test_many_followers(service, client, code):
    def follow(_: int) -> list[str]:
        with httpx.stream("GET", f"{service.url}/parcels/{code}/events", timeout=20) as answer:
            return [event["status"] for _, event in events_of(answer.iter_lines())]

    with ThreadPoolExecutor(20) as pool:
        results = [pool.submit(follow, number) for number in range(20)]
        wait_until(lambda: client.get(f"/parcels/{code}/followers").json() == 20, "all follow")
        scan(client, code, "in-transit")
        scan(client, code, "returned")
        assert [result.result() for result in results] == [["booked", "in-transit", "returned"]] * 20


# --- forms, files, threads, other services ------------------------------------------------------------------


def test_manifest(client):
    files = {"file": ("monday.csv", MANIFEST, "text/csv")}
    answer = client.post("/parcels/manifest", files=files, data={"depot": "KEL"})
    assert answer.status_code == 201, answer.text
    report = answer.json()
    assert (report["filename"], report["bytes"], len(report["booked"])) == ("monday.csv", len(MANIFEST.encode()), 2)
    assert [error["line"] for error in report["errors"]] == [3, 5]
    assert report["errors"][0]["message"].startswith("weight: ")
    assert client.get(f"/parcels/{report['booked'][1]}").json()["recipient"]["name"] == "Edsger"


def test_large_manifest(client):
    """Larger than what a form keeps in memory (1 MB), in many reads."""
    lines = [f"Name {number},{'x' * 100} {number},City,12345,DE,1" for number in range(12_000)]
    text = "\n".join(["name,street,city,postcode,country,weight", *lines])
    answer = client.post("/parcels/manifest", files={"file": ("big.csv", text)}, data={"depot": "BIG"})
    assert (answer.json()["bytes"], len(answer.json()["booked"])) == (len(text), 12_000)


def test_manifest_without_its_parts(client):
    assert client.post("/parcels/manifest", data={"depot": "KEL"}).status_code == 422
    assert client.post("/parcels/manifest", files={"file": ("a.csv", MANIFEST)}).status_code == 422
    files = {"file": ("a.csv", b"\xff\xfe\x00")}
    assert client.post("/parcels/manifest", files=files, data={"depot": "KEL"}).status_code == 415


def test_label(client):
    code = book(client, recipient={**ADA, "name": "Ada & <Söhne>"})["code"]
    answer = client.get(f"/parcels/{code}/label")
    assert answer.headers["content-type"] == "image/svg+xml"
    tree = ElementTree.fromstring(answer.text)
    space = "{http://www.w3.org/2000/svg}"
    assert tree.find(f"{space}title").text == code
    assert tree.find(f"{space}text").text == "Ada & <Söhne>"
    assert len(tree.findall(f"{space}rect")) == 5 * (len(code) + 2)


def test_labels_in_parallel(service, code):
    def label(_: int) -> int:
        return httpx.get(f"{service.url}/parcels/{code}/label", timeout=20).status_code

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(label, range(64))) == [200] * 64


def test_quote_asks_the_tariff_service(client):
    """By default that is the application itself: a request that waits for another on the same loop."""
    answer = client.get("/quotes", params={"zone": "europe", "weight": "2.5"})
    assert answer.json() == {"zone": "europe", "weight": "2.5", "price": "12.50", "currency": "EUR"}
    assert client.get("/quotes", params={"zone": "moon", "weight": "1"}).status_code == 422
    assert client.get("/quotes", params={"zone": "world", "weight": "71"}).status_code == 422


def test_quotes_in_parallel(service):
    def price(weight: int) -> str:
        return httpx.get(f"{service.url}/quotes?zone=domestic&weight={weight}", timeout=20).json()["price"]

    with ThreadPoolExecutor(16) as pool:
        expected = [f"{390 + 45 * weight:03d}" for weight in range(1, 33)]
        assert list(pool.map(price, range(1, 33))) == [f"{cents[:-2]}.{cents[-2:]}" for cents in expected]


def test_tariff_service_elsewhere_and_down(service):
    with start(PARCELS_TARIFF_URL=service.url) as other:
        answer = httpx.get(f"{other.url}/quotes?zone=world&weight=2", timeout=20)
        assert answer.json()["price"] == "26.50"
    with start(PARCELS_TARIFF_URL="http://127.0.0.1:9") as other:
        answer = httpx.get(f"{other.url}/quotes?zone=world&weight=2", timeout=20)
        assert (answer.status_code, answer.json()) == (502, {"detail": "the tariff service does not answer"})


# --- as a whole ---------------------------------------------------------------------------------------------


def test_asynchronous_client(service):
    """Fifty clients at once on one event loop of their own."""

    async def main() -> list[int]:
        async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
            answers = await asyncio.gather(*(client.get("/health") for _ in range(50)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200] * 50


def test_raw_socket(service):
    body = json.dumps({"recipient": ADA, "weight": "1", "depot": "RAW"}).encode()
    with service.connect() as connection:
        headers = [("Content-Type", "application/json")]
        answer = connection.request("POST", "/parcels", headers, body)
        assert answer.status == 201
        assert answer.header("content-length") == str(len(answer.body))
        code = json.loads(answer.body)["code"]
        connection.send(b"".join(b"GET /parcels/%s HTTP/1.1\r\nHost: x\r\n\r\n" % code.encode() for _ in range(20)))
        for _ in range(20):
            assert json.loads(connection.read_response().body)["code"] == code
        connection.send(b"POST /parcels HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.send(b"Transfer-Encoding: chunked\r\n\r\n")
        for begin in range(0, len(body), 10):
            piece = body[begin : begin + 10]
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        assert connection.read_response().status == 201


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_in_good_order(number):
    with start() as running:
        with httpx.Client(base_url=running.url, timeout=20) as client:
            client.get("/quotes?zone=europe&weight=1")
            assert running.stop(number) in exit_status_of(number)
        assert "Application shutdown complete." in running.log.text
        assert "Traceback" not in running.log.text
        assert "ERROR" not in running.log.text
