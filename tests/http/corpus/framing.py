"""How long a body is: RFC 9112, section 6."""

from .case import CHUNKED, END, GET, LAST_CHUNK, POST, SMUGGLED, Case, table

CASES: list[Case] = []
FIVE = (("POST", "/", b"hello"),)


def length(value: bytes, *answers: str, name: str | None = None, body: bytes = b"hello", **more) -> None:
    """A POST with this Content-Length."""
    label = name or value.decode("latin-1")
    table(CASES, more.pop("rfc", "9110 8.6"))(
        f"length: {label!r}", POST + b"Content-Length:" + value + b"\r\n\r\n" + body, *answers, **more
    )


# --- Content-Length ---------------------------------------------------------------------------------------------------

length(b" 5", "200", sees=FIVE)
length(b"5", "200", sees=FIVE)
length(b"\t5\t ", "200", sees=FIVE)
length(b" 00000005", "200", "400", sees=FIVE)
length(b" 0", "200", body=b"", sees=(("POST", "/", b""),))
for value in (
    b"",
    b" ",
    b" -5",
    b" +5",
    b" 5.0",
    b" 5e0",
    b" 0x5",
    b" 5h",
    b" 5 5",
    b" five",
    b" 5,",
    b" ,5",
    b" 5,5",
    b" 5, 5",
    b" 5, 6",
    b" 5;5",
    b" 5;a=b",
    b' "5"',
    b" '5'",
    b" 5_0",
    b" 0_5",
    b" 0b101",
    b" 0o5",
    b" 5\x0b",
    b" \x0b5",
    b" \x0c5",
    b" 5\0",
    b" \x005",
    b" 5\xa0",
    b" \xc2\xb25",
    b" \xef\xbc\x95",
    b" NaN",
    b" inf",
    b" -0",
    b" (5)",
    b" 5#",
    b" $5",
    b" 5-",
    b" 5 x",
    b" 5\tx",
    b" 1 0",
    b" -1",
    b" -9223372036854775808",
    b" 9223372036854775808999",
    b" 18446744073709551616",
    b" 18446744073709551621",
    b" 36893488147419103237",
    b" 99999999999999999999999999",
    b" " + b"9" * 400,
):
    length(value, "400", name=value[:40].decode("latin-1"))
length(b" 4294967301", "-", "400", "413", name="2**32 + 5, then the end", eof=True, streams=True, rfc="9112 8")

add = table(CASES, "9112 6.3")
add("lengths: two that differ", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "400")
add("lengths: two that differ, cases differ", POST + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!", "400")
add(
    "lengths: two that differ, far apart",
    POST + b"Content-Length: 0\r\n" + b"X-A: b\r\n" * 20 + b"Content-Length: 35\r\n\r\n" + SMUGGLED,
    "400",
)
add("lengths: two that are the same", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400")
add("lengths: two, written differently", POST + b"Content-Length: 5\r\nContent-Length: 05\r\n\r\nhello", "400")
add("lengths: first empty", POST + b"Content-Length:\r\nContent-Length: 5\r\n\r\nhello", "400")
add("lengths: second empty", POST + b"Content-Length: 5\r\nContent-Length:\r\n\r\nhello", "400")
add("lengths: three", POST + b"Content-Length: 5\r\n" * 3 + b"\r\nhello", "400")
add("lengths: two zeros", POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED, "400")
add("lengths: zero and a request", GET + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + SMUGGLED, "400")
add("length: of a GET", GET + b"Content-Length: 5\r\n\r\nhello", "200", sees=(("GET", "/", b"hello"),))
add(
    "length: of a GET hides a request",
    GET + b"Content-Length: 35\r\n\r\n" + SMUGGLED,
    "200",
    sees=(("GET", "/", SMUGGLED),),
)
add(
    "length: of a HEAD hides a request",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "200",
    sees=(("HEAD", "/", SMUGGLED),),
)
add(
    "length: of a DELETE hides a request",
    b"DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "200",
    sees=(("DELETE", "/", SMUGGLED),),
)
add(
    "length: of an OPTIONS hides a request",
    b"OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "200",
    sees=(("OPTIONS", "/", SMUGGLED),),
)
add(
    "length: none of a POST, then a request",
    POST + b"\r\n" + GET + END,
    "200 200",
    sees=(("POST", "/", b""), ("GET", "/", b"")),
)
add("length: shorter than what comes", POST + b"Content-Length: 3\r\n\r\nhello" + SMUGGLED, "200 400", "200 501")
add(
    "length: more than comes",
    POST + b"Content-Length: 50\r\n\r\n" + GET + END,
    "-",
    "400",
    eof=True,
    streams=True,
    rfc="9112 8",
)
add("length: nothing comes", POST + b"Content-Length: 5\r\n\r\n", "-", "400", eof=True, streams=True, rfc="9112 8")
add("length: in HTTP/1.0", b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "200", sees=FIVE)
add("length: none in HTTP/1.0", b"POST / HTTP/1.0\r\n\r\nhello", "200", "200 400", "400", "411")

# --- Content-Length with Transfer-Encoding ----------------------------------------------------------------------------

add = table(CASES, "9112 6.1")
CL, TE = b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"
add("both: length first", POST + CL % 5 + TE + END + LAST_CHUNK, "400")
add("both: chunked first", POST + TE + CL % 5 + END + LAST_CHUNK, "400")
add("both: CL.TE", POST + CL % 42 + TE + END + LAST_CHUNK + SMUGGLED, "400")
add("both: TE.CL", POST + TE + CL % 4 + END + b"23\r\n" + SMUGGLED + b"\r\n" + LAST_CHUNK, "400")
add("both: length 0", POST + CL % 0 + TE + END + LAST_CHUNK, "400")
add("both: length 0 last", POST + TE + CL % 0 + END + LAST_CHUNK, "400")
add("both: in a GET", GET + CL % 5 + TE + END + LAST_CHUNK + SMUGGLED, "400")
add("both: two lengths", POST + CL % 5 + TE + CL % 5 + END + LAST_CHUNK, "400")
add("both: in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\n" + CL % 5 + TE + END + LAST_CHUNK, "400")
add("both: far apart", POST + CL % 5 + b"X-A: b\r\n" * 30 + TE + END + LAST_CHUNK, "400")
add("both: a coding that is none", POST + CL % 5 + b"Transfer-Encoding: identity\r\n\r\nhello", "400", "501")
add("both: an empty coding", POST + CL % 5 + b"Transfer-Encoding:\r\n\r\nhello", "400", "501")
add("both: an unknown coding", POST + CL % 5 + b"Transfer-Encoding: x\r\n\r\nhello", "400", "501")
add("both: gzip, chunked", POST + CL % 5 + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST_CHUNK, "400", "501")
add(
    "both: coding with a space before its colon",
    POST + CL % 5 + b"Transfer-Encoding : chunked\r\n\r\n" + LAST_CHUNK,
    "400",
)
add("both: length with a space before its colon", POST + TE + b"Content-Length : 5\r\n\r\n" + LAST_CHUNK, "400")
add(
    "both: coding named by Connection",
    POST + b"Connection: transfer-encoding\r\n" + CL % 5 + TE + END + LAST_CHUNK,
    "400",
)
add(
    "both: length named by Connection", POST + b"Connection: content-length\r\n" + CL % 5 + TE + END + LAST_CHUNK, "400"
)

# --- Transfer-Encoding ------------------------------------------------------------------------------------------------


def coding(value: bytes, *answers: str, body: bytes = LAST_CHUNK + SMUGGLED, **more) -> None:
    """A POST with this Transfer-Encoding."""
    raw = POST + b"Transfer-Encoding:" + value + b"\r\n\r\n" + body
    table(CASES, more.pop("rfc", "9112 6.1"))(f"coding: {value.decode('latin-1')!r}", raw, *answers, **more)


for value in (b" chunked", b"chunked", b"\tchunked", b" Chunked", b" CHUNKED", b" cHuNkEd "):
    coding(value, "200", body=b"5\r\nhello\r\n0\r\n\r\n", sees=FIVE, rfc="9112 7")
coding(b" chunked\t", "200", "400", body=b"5\r\nhello\r\n0\r\n\r\n", sees=FIVE, rfc="9112 7")
for value in (
    b"",
    b" ",
    b" identity",
    b" gzip",
    b" deflate",
    b" compress",
    b" x",
    b" xchunked",
    b" chunkedx",
    b" chunke",
    b" chun",
    b" chunked1",
    b" x-chunked",
    b" chunk",
    b" chunked;q=1",
    b" chunked;a",
    b" chunked ; a=b",
    b' "chunked"',
    b" 'chunked'",
    b" (chunked)",
    b" chunked, chunked",
    b" chunked,chunked",
    b" chunked, identity",
    b" identity, chunked",
    b" chunked, gzip",
    b" gzip, chunked",
    b" gzip,chunked",
    b" gzip chunked",
    b" chunked gzip",
    b" chunked chunked",
    b" chunked,",
    b" ,chunked",
    b" ,",
    b" ,,chunked",
    b" chunked, x",
    b" x, chunked",
    b" trailers",
    b" trailers, chunked",
    b" \x0bchunked",
    b" \x0cchunked",
    b" chunked\x0b",
    b" chunked\0",
    b" \0chunked",
    b" chun\0ked",
    b" chunked\x7f",
    b" \xa0chunked",
    b" chunked\xa0",
    b" \xef\xbb\xbfchunked",
    b" \xe2\x84\xaahunked",
    b" chun\tked",
    b" ch unked",
    b" chunked\\",
    b" chunked\rX",
    b" chunked\r",
    b" chunked#",
    b" chunked: x",
    b": chunked",
    b" =chunked",
    b" *",
):
    coding(value, "400", "501")
add("codings: chunked twice", POST + TE + TE + END + LAST_CHUNK + SMUGGLED, "400", "501")
add("codings: chunked, then identity", POST + TE + b"Transfer-Encoding: identity\r\n\r\n" + LAST_CHUNK, "400", "501")
add("codings: identity, then chunked", POST + b"Transfer-Encoding: identity\r\n" + TE + END + LAST_CHUNK, "400", "501")
add("codings: chunked, then nonsense", POST + TE + b"Transfer-Encoding: x\r\n\r\n" + LAST_CHUNK, "400", "501")
add("codings: nonsense, then chunked", POST + b"Transfer-Encoding: x\r\n" + TE + END + LAST_CHUNK, "400", "501")
add("codings: gzip, then chunked", POST + b"Transfer-Encoding: gzip\r\n" + TE + END + LAST_CHUNK, "400", "501")
add("codings: chunked, then empty", POST + TE + b"Transfer-Encoding:\r\n\r\n" + LAST_CHUNK, "400", "501")
add("codings: empty, then chunked", POST + b"Transfer-Encoding:\r\n" + TE + END + LAST_CHUNK, "400", "501")
add("codings: cases differ", POST + TE + b"tRANSFER-eNCODING: chunked\r\n\r\n" + LAST_CHUNK, "400", "501")
add("coding: in a GET", GET + TE + b"\r\n5\r\nhello\r\n0\r\n\r\n", "200", sees=(("GET", "/", b"hello"),))
add(
    "coding: hides a request",
    POST + TE + b"\r\n23\r\n" + SMUGGLED + b"\r\n" + LAST_CHUNK,
    "200",
    sees=(("POST", "/", SMUGGLED),),
)
add("coding: in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\n" + TE + END + LAST_CHUNK, "400", "501")
add(
    "coding: in HTTP/1.0 with keep-alive",
    b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n" + TE + END + LAST_CHUNK + SMUGGLED,
    "400",
    "501",
)
add(
    "coding: identity in HTTP/1.0",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    "400",
    "501",
)
add("coding: LF before it hides it", POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK, "400")
add("coding: CR before it hides it", POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK, "400")
add("coding: NUL in its name", POST + b"Transfer-\0Encoding: chunked\r\n\r\n" + LAST_CHUNK, "400")
add("coding: a name like its own", POST + b"Transfer-Encodin: chunked\r\n\r\n", "200", sees=(("POST", "/", b""),))
add(
    "coding: Content-Encoding is none",
    POST + b"Content-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "200",
    sees=FIVE,
)
add("coding: TE is none", POST + b"TE: chunked\r\nContent-Length: 5\r\n\r\nhello", "200", sees=FIVE)
add(
    "coding: an unfinished body at the end of the connection",
    CHUNKED + b"5\r\nhel",
    "-",
    "400",
    eof=True,
    streams=True,
    rfc="9112 8",
)
add(
    "coding: no last chunk at the end of the connection",
    CHUNKED + b"5\r\nhello\r\n",
    "-",
    "400",
    eof=True,
    streams=True,
    rfc="9112 8",
)
add(
    "coding: no end of the trailers at the end of the connection",
    CHUNKED + b"5\r\nhello\r\n0\r\n",
    "-",
    "400",
    eof=True,
    streams=True,
    rfc="9112 8",
)
