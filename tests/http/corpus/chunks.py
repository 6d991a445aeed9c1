"""The chunked coding: RFC 9112, section 7.1."""

from .case import CHUNKED, END, GET, LAST_CHUNK, POST, SMUGGLED, Case, table

CASES: list[Case] = []
FIVE = (("POST", "/", b"hello"),)


def size(line: bytes, *answers: str, name: str | None = None, **more) -> None:
    """A chunked body whose first chunk has this size line."""
    raw = CHUNKED + line + b"\r\nhello\r\n" + LAST_CHUNK
    if answers == ():
        answers, more = ("400",), {"streams": True, **more}
    else:
        more = {"sees": FIVE, "streams": "400" in answers, **more}
    table(CASES, "9112 7.1")(f"chunk size: {name or line.decode('latin-1')!r}", raw, *answers, **more)


size(b"5", "200")
size(b"05", "200")
size(b"0000000000000005", "200", "400")
size(b"0" * 40 + b"5", "200", "400", name="40 zeros before it")
for line in (
    b"",
    b" ",
    b" 5",
    b"\t5",
    b"+5",
    b"-5",
    b"0x5",
    b"0X5",
    b"5h",
    b"5x",
    b"x5",
    b"g",
    b"5.0",
    b"5,0",
    b"5_0",
    b"0_5",
    b"5 5",
    b"5\t5",
    b"five",
    b'"5"',
    b"5:",
    b"5=",
    b"5#",
    b"5\\",
    b"\x0b5",
    b"5\x0b",
    b"\x0c5",
    b"5\x0c",
    b"\x005",
    b"5\0",
    b"5\x7f",
    b"\xa05",
    b"5\xa0",
    b"\xef\xbc\x95",
    b"5\r",
    b"5\rX",
    b"5\n",
    b"\n5",
    b"\r\n5",
    b"10000000000000005",
    b"ffffffffffffffff5",
    b"fffffffffffffffff",
    b"-ffffffffffffffff",
    b"100000000000000000000000000000005",
    b"5 HTTP/1.1",
    b"5 GET / HTTP/1.1",
):
    size(line)
size(b"5 ", "400", "200")
size(b"5\t", "400", "200")
size(b"ffffffffffffffff", "-", "400", "413", name="2**64 - 1, then the end", eof=True, streams=True, sees=None)
size(b"8000000000000000", "-", "400", "413", name="2**63, then the end", eof=True, streams=True, sees=None)
size(b"7fffffffffffffff", "-", "400", "413", name="2**63 - 1, then the end", eof=True, streams=True, sees=None)

# --- line ends --------------------------------------------------------------------------------------------------------

add = table(CASES, "9112 7.1")
BAD = {"streams": True}
add("chunk: LF after its size", CHUNKED + b"5\nhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: CR after its size", CHUNKED + b"5\rhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: CR CR LF after its size", CHUNKED + b"5\r\r\nhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: LF CR after its size", CHUNKED + b"5\n\rhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: LF after its data", CHUNKED + b"5\r\nhello\n" + LAST_CHUNK, "400", **BAD)
add("chunk: CR after its data", CHUNKED + b"5\r\nhello\r" + LAST_CHUNK, "400", **BAD)
add("chunk: nothing after its data", CHUNKED + b"5\r\nhello" + LAST_CHUNK, "400", **BAD)
add("chunk: space after its data", CHUNKED + b"5\r\nhello \r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: more data than its size", CHUNKED + b"3\r\nhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: less data than its size", CHUNKED + b"9\r\nhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: any two bytes after its data", CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + SMUGGLED, "400", **BAD)
add("chunk: an empty line before its size", CHUNKED + b"\r\n5\r\nhello\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: an empty line between two", CHUNKED + b"5\r\nhello\r\n\r\n" + LAST_CHUNK, "400", **BAD)
add("chunk: LF after the last one's size", CHUNKED + b"5\r\nhello\r\n0\n\r\n" + SMUGGLED, "400", **BAD)
add("chunk: LF for the end", CHUNKED + b"5\r\nhello\r\n0\r\n\n" + SMUGGLED, "400", **BAD)
add("chunk: CR for the end", CHUNKED + b"5\r\nhello\r\n0\r\n\r" + SMUGGLED, "400", **BAD)
add("chunk: LF LF for the end", CHUNKED + b"5\r\nhello\r\n0\n\n" + SMUGGLED, "400", **BAD)
add("chunk: no end, then a request", CHUNKED + b"5\r\nhello\r\n0\r\n" + SMUGGLED, "400", **BAD)
add("chunk: 00 ends the body", CHUNKED + b"5\r\nhello\r\n00\r\n\r\n", "200", sees=FIVE)
add("chunk: 0 with data", CHUNKED + b"0\r\nhello\r\n\r\n", "400", **BAD)
add("chunk: a whole request in place of one", CHUNKED + SMUGGLED, "400", **BAD)
add("chunk: a length in place of one", CHUNKED + b"Content-Length: 5\r\n\r\nhello", "400", **BAD)
add(
    "chunk: upper-case size", CHUNKED + b"A\r\n0123456789\r\n" + LAST_CHUNK, "200", sees=(("POST", "/", b"0123456789"),)
)
add(
    "chunk: lower-case size", CHUNKED + b"a\r\n0123456789\r\n" + LAST_CHUNK, "200", sees=(("POST", "/", b"0123456789"),)
)
add(
    "chunk: one byte each",
    CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello") + LAST_CHUNK,
    "200",
    sees=FIVE,
)
add(
    "chunk: no data at all, then a request",
    CHUNKED + LAST_CHUNK + GET + END,
    "200 200",
    sees=(("POST", "/", b""), ("GET", "/", b"")),
)
add("chunk: after a bad one nothing is answered", CHUNKED + b"x\r\n" + SMUGGLED * 3, "400", **BAD)

# --- extensions -------------------------------------------------------------------------------------------------------


def extension(text: bytes, *answers: str, name: str | None = None) -> None:
    """A chunk with this after its size."""
    table(CASES, "9112 7.1.1")(
        f"chunk extension: {name or text.decode('latin-1')!r}",
        CHUNKED + b"5" + text + b"\r\nhello\r\n" + LAST_CHUNK,
        *answers,
        streams="400" in answers,
        sees=FIVE if "200" in answers else None,
    )


for text in (b";a", b";a=b", b";a;b", b";a=b;c=d", b';a="b"', b';a="b c"', b';a="\\""', b';a=";"'):
    extension(text, "200")
for text in (
    b" ;a=b",
    b"; a=b",
    b";a =b",
    b";a= b",
    b";a=b ",
    b"\t;a",
    b' ; a = "b"',
    b';a=""',
    b';a="\xff"',
    b';a="\\\xff"',
    b';a="\t"',
):
    extension(text, "200", "400")
for text in (
    b";",
    b";;",
    b";a;",
    b";a=",
    b";a==b",
    b";=b",
    b";a=b=c",
    b";a b",
    b";a\0",
    b";\0",
    b";a=\0",
    b";a\rb",
    b";a\nb",
    b";a=b\nc",
    b";\n",
    b";\r",
    b";a=\x01",
    b";a\x7f",
    b";a\xff",
    b";\xff",
    b';a="',
    b';a="b',
    b';a="b"c',
    b';a="\0"',
    b';a="\n"',
    b';a="\r"',
    b';a="\x7f"',
    b';a="b\r\n"',
    b";a=(b)",
    b";(a)",
    b";a,b",
    b";a=b,c",
    b";a/b",
    b";a=b@c",
    b";a\r\r",
    b";\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    b";a\nhello\r\n0\r\n\r\n" + SMUGGLED,
):
    extension(text, "400", name=text[:20].decode("latin-1"))
extension(b";a=" + b"b" * 300_000, "400", "413", "431", name="300,000 bytes")
extension(b';a="' + b"b" * 300_000 + b'"', "400", "413", "431", name="300,000 bytes, quoted")
extension(b";a=b" * 75_000, "400", "413", "431", name="75,000 of them")
add = table(CASES, "9112 7.1.1")
add(
    "chunk extension: 2,000 chunks of one byte with 200 each",
    CHUNKED + (b"1;a=" + b"b" * 200 + b"\r\nx\r\n") * 2_000 + LAST_CHUNK,
    "400",
    "413",
    "431",
    **BAD,
)
add("chunk extension: of the last chunk", CHUNKED + b"5\r\nhello\r\n0;a=b\r\n\r\n", "200", sees=FIVE)
add("chunk extension: LF in that of the last chunk", CHUNKED + b"5\r\nhello\r\n0;a\n\r\n" + SMUGGLED, "400", **BAD)

# --- trailers ---------------------------------------------------------------------------------------------------------


def trailer(lines: bytes, *answers: str, name: str) -> None:
    """A chunked body with these trailer lines, and an empty one after them; then another request."""
    good = "200 200" in answers
    table(CASES, "9112 7.1.2")(
        f"trailer: {name}",
        CHUNKED + b"5\r\nhello\r\n0\r\n" + lines + b"\r\n" + (GET + END if good else SMUGGLED),
        *answers,
        streams=not good or len(answers) > 1,
        sees=(*FIVE, ("GET", "/", b"")) if good else None,
    )


trailer(b"X-A: smuggled\r\n", "200 200", name="one")
trailer(b"X-A: smuggled\r\nX-B: smuggled\r\n", "200 200", name="two")
trailer(b"X-A:\r\n", "200 200", name="an empty one")
trailer(b"Content-Length: 5\r\n", "200 200", "400", name="Content-Length")
trailer(b"Content-Length: 35\r\n", "200 200", "400", name="Content-Length of the next request")
trailer(b"Transfer-Encoding: chunked\r\n", "200 200", "400", name="Transfer-Encoding")
trailer(b"Host: smuggled\r\n", "200 200", "400", name="Host")
trailer(b"Connection: close\r\n", "200 200", "400", name="Connection: close")
trailer(b"Connection: upgrade\r\nUpgrade: websocket\r\n", "200 200", "400", name="Upgrade")
trailer(b"Authorization: smuggled\r\n", "200 200", "400", name="Authorization")
trailer(b"Cookie: smuggled\r\n", "200 200", "400", name="Cookie")
trailer(b"X-Forwarded-For: smuggled\r\n", "200 200", "400", name="X-Forwarded-For")
trailer(b"Expect: 100-continue\r\n", "200 200", "400", name="Expect")
trailer(b"Content-Length: x\r\n", "200 200", "400", name="a bad Content-Length")
trailer(b"X-A: b\r\n c\r\n", "400", name="folded")
trailer(b" X-A: b\r\n", "400", name="starts with a space")
trailer(b"X-A : b\r\n", "400", name="space before the colon")
trailer(b"X-A\r\n", "400", name="no colon")
trailer(b": b\r\n", "400", name="no name")
trailer(b"X A: b\r\n", "400", name="space in the name")
trailer(b"X-A: b\0\r\n", "400", name="NUL in the value")
trailer(b"X-A\0: b\r\n", "400", name="NUL in the name")
trailer(b"X-A: b\rc\r\n", "400", name="CR in the value")
trailer(b"X-A: b\n", "400", name="ends in LF")
trailer(b"X-A: b\x01\r\n", "400", name="a control byte in the value")
trailer(b"GET /smuggled HTTP/1.1\r\n", "400", name="a request line")
trailer(b"X-A: " + b"b" * 300_000 + b"\r\n", "400", "413", "431", name="300,000 bytes")
trailer(b"X-A: b\r\n" * 40_000, "400", "413", "431", name="40,000 of them")
add = table(CASES, "9112 7.1.2")
add(
    "trailer: announced",
    POST + b"Trailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: smuggled\r\n\r\n",
    "200",
    sees=FIVE,
)
add("trailer: after no data", CHUNKED + b"0\r\nX-A: smuggled\r\n\r\n", "200", sees=(("POST", "/", b""),))
