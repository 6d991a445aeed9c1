"""Requests in a row, the end of a connection, Expect and Upgrade: RFC 9112, section 9; RFC 9110, sections 7 and 10."""

from .case import CHUNKED, END, GET, LAST_CHUNK, POST, SMUGGLED, Case, table

CASES: list[Case] = []
ONE, TWO = (("GET", "/", b""),), (("GET", "/", b""), ("GET", "/", b""))
FIVE = (("POST", "/", b"hello"),)

# --- close ------------------------------------------------------------------------------------------------------------

add = table(CASES, "9112 9.6")
add("close: then a request", GET + b"Connection: close\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: then nonsense", GET + b"Connection: close\r\n\r\nnonsense", "200", "200 400", sees=ONE)
add("close: upper case", GET + b"Connection: CLOSE\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: in a list", GET + b"Connection: x, close\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: first in a list", GET + b"Connection: close, x\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: in a list without spaces", GET + b"Connection: x,close,y\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: after empty elements", GET + b"Connection: ,, close\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: in the second field", GET + b"Connection: x\r\nConnection: close\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: in the first field", GET + b"Connection: close\r\nConnection: x\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: with keep-alive", GET + b"Connection: keep-alive, close\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add(
    "close: keep-alive in another field",
    GET + b"Connection: close\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED,
    "200",
    sees=ONE,
)
add(
    "close: keep-alive in the field before",
    GET + b"Connection: keep-alive\r\nConnection: close\r\n\r\n" + SMUGGLED,
    "200",
    sees=ONE,
)
add("close: with spaces around", GET + b"Connection: \t close \t \r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("close: with a body", POST + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED, "200", sees=FIVE)
add(
    "close: with chunks",
    POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "200",
    sees=FIVE,
)
add("close: in the second request", GET + END + GET + b"Connection: close\r\n\r\n" + SMUGGLED, "200 200", sees=TWO)
add("close: a word that contains it", GET + b"Connection: closed\r\n\r\n" + GET + END, "200 200", sees=TWO)
add(
    "close: Proxy-Connection is not it",
    GET + b"Proxy-Connection: close\r\n\r\n" + GET + END,
    "200 200",
    "200",
    sees=TWO,
)
add("HTTP/1.0: then a request", b"GET / HTTP/1.0\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add(
    "HTTP/1.0: keep-alive, then a request",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET + END,
    "200 200",
    "200",
    sees=TWO,
)
add(
    "HTTP/1.0: keep-alive and close",
    b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n" + SMUGGLED,
    "200",
    sees=ONE,
)
add("HTTP/1.0: Connection: x", b"GET / HTTP/1.0\r\nConnection: x\r\n\r\n" + SMUGGLED, "200", sees=ONE)
add("HTTP/1.0: with a Host and a request behind", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + SMUGGLED, "200", sees=ONE)

# --- pipelining -------------------------------------------------------------------------------------------------------

add = table(CASES, "9112 9.3.2")
add("pipeline: two", (GET + END) * 2, "200 200", sees=TWO)
add("pipeline: twenty", (GET + END) * 20, " ".join(["200"] * 20))
add("pipeline: bodies", (POST + b"Content-Length: 5\r\n\r\nhello") * 3, "200 200 200", sees=FIVE * 3)
add(
    "pipeline: chunks, then a length",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + POST + b"Content-Length: 5\r\n\r\nhello",
    "200 200",
    sees=FIVE * 2,
)
add("pipeline: nonsense in second place", GET + END + b"nonsense\r\n\r\n" + SMUGGLED, "200 400")
add(
    "pipeline: two spellings of the length in second place",
    GET + END + POST + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "200 400",
)
add(
    "pipeline: both framings in second place",
    GET + END + POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK + SMUGGLED,
    "200 400",
)
add("pipeline: no Host in second place", GET + END + b"GET /smuggled HTTP/1.1\r\n\r\n", "200 400")
add("pipeline: fold in second place", GET + END + GET + b"X: y\r\n z\r\n\r\n" + SMUGGLED, "200 400")
add(
    "pipeline: a bad version in second place",
    GET + END + b"GET /smuggled HTTP/3.0\r\nHost: a\r\n\r\n",
    "200 400",
    "200 505",
)
add("pipeline: bad chunks in second place", GET + END + CHUNKED + b"x\r\n" + SMUGGLED, "200 400", streams=True)
add("pipeline: a space between two", GET + END + b" " + SMUGGLED, "200 400", "200 501")
add("pipeline: a NUL between two", GET + END + b"\0" + SMUGGLED, "200 400", "200 501")
add("pipeline: a CR between two", GET + END + b"\r" + SMUGGLED, "200 400")
add("pipeline: half a request", GET + END + b"GET /smu", "200", "200 400", eof=True, sees=ONE)
add("pipeline: half a head", GET + END + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n", "200", "200 400", eof=True, sees=ONE)
add(
    "pipeline: a HEAD before a GET",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET + END,
    "200 200",
    sees=(("HEAD", "/", b""), ("GET", "/", b"")),
)
add(
    "pipeline: fields do not outlive their request",
    GET + b"X-Secret: 1\r\nContent-Length: 1\r\n\r\nx" + GET + END,
    "200 200",
    sees=(("GET", "/", b"x"), ("GET", "/", b"")),
)

# --- unfinished heads -------------------------------------------------------------------------------------------------

add = table(CASES, "9112 8")
add("end: after the method", b"GET", "-", "400", eof=True)
add("end: after the target", b"GET /smuggled", "-", "400", eof=True)
add("end: after the request line", b"GET /smuggled HTTP/1.1\r\n", "-", "400", eof=True)
add("end: after Host", GET, "-", "400", eof=True)
add("end: in a name", GET + b"X-A", "-", "400", eof=True)
add("end: in a value", GET + b"X-A: b", "-", "400", eof=True)
add("end: before the last LF", GET + b"\r", "-", "400", eof=True)
add("end: nothing sent", b"", "-", "400", eof=True)
add("end: an empty line", b"\r\n", "-", "400", eof=True)

# --- Expect -----------------------------------------------------------------------------------------------------------

add = table(CASES, "9110 10.1.1")
add(
    "expect: 100-continue, body sent with it",
    POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "200",
    sees=FIVE,
)
add("expect: upper case", POST + b"Expect: 100-CONTINUE\r\nContent-Length: 5\r\n\r\nhello", "200", sees=FIVE)
add("expect: without a body", GET + b"Expect: 100-continue\r\n\r\n" + GET + END, "200 200", sees=TWO)
add(
    "expect: in HTTP/1.0",
    b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "200",
    sees=FIVE,
)
add("expect: unknown", POST + b"Expect: x\r\nContent-Length: 5\r\n\r\nhello", "200", "417", "400", sees=FIVE)
add(
    "expect: twice",
    POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "200",
    "417",
    "400",
    sees=FIVE,
)
add(
    "expect: both framings",
    POST + b"Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK,
    "400",
)
add("expect: a bad length", POST + b"Expect: 100-continue\r\nContent-Length: x\r\n\r\nhello", "400")
add(
    "expect: bad chunks",
    POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n" + SMUGGLED,
    "400",
    streams=True,
)

# --- Upgrade ----------------------------------------------------------------------------------------------------------

add = table(CASES, "9110 7.8")
add(
    "upgrade: h2c",
    GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "200",
    "400",
    sees=ONE,
)
add(
    "upgrade: h2c, then a request",
    GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET + END,
    "200 200",
    "200",
    "400",
    sees=TWO,
)
add(
    "upgrade: h2c, then frames",
    GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4",
    "200 400",
    "200 501",
    "200 505",
    "200",
    "400",
)
add(
    "upgrade: unknown",
    GET + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n" + GET + END,
    "200 200",
    "200",
    "400",
    sees=TWO,
)
add("upgrade: without Connection", GET + b"Upgrade: h2c\r\n\r\n" + GET + END, "200 200", "200", "400", sees=TWO)
add("upgrade: without Upgrade", GET + b"Connection: Upgrade\r\n\r\n" + GET + END, "200 200", "200", "400", sees=TWO)
add(
    "upgrade: with a body",
    POST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello",
    "200",
    "400",
    sees=FIVE,
)
add(
    "upgrade: with chunks",
    POST + b"Connection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "200",
    "400",
    sees=FIVE,
)
add(
    "upgrade: with both framings",
    POST
    + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    + LAST_CHUNK
    + SMUGGLED,
    "400",
)
add(
    "upgrade: with two lengths",
    POST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "400",
)
add(
    "upgrade: hides a request in its body",
    POST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "200",
    "400",
    sees=(("POST", "/", SMUGGLED),),
)
add(
    "upgrade: in HTTP/1.0",
    b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + SMUGGLED,
    "200",
    "400",
    sees=ONE,
)
add(
    "upgrade: to HTTP/2.0 by name",
    GET + b"Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n" + GET + END,
    "200 200",
    "200",
    "400",
    sees=TWO,
)
add(
    "upgrade: TLS",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
    "200",
    "400",
    sees=(("OPTIONS", "*", b""),),
)
add(
    "upgrade: WebSocket without a Host",
    b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "400",
    rfc="6455 4.2.1",
)
add(
    "upgrade: WebSocket in HTTP/1.0 with a request behind",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + SMUGGLED,
    "200",
    "400",
    "426",
    rfc="6455 4.2.1",
    eof=True,
)
add(
    "upgrade: WebSocket with both framings",
    GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    + LAST_CHUNK
    + SMUGGLED,
    "400",
    rfc="6455 4.2.1",
)
