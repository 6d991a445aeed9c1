"""Header fields: RFC 9112, section 5, and RFC 9110, section 5."""

from .case import END, GET, POST, SMUGGLED, Case, table

CASES: list[Case] = []
ONE = (("GET", "/", b""),)

# --- names ------------------------------------------------------------------------------------------------------------

add = table(CASES, "9112 5.1")
add("name: space before the colon", GET + b"X-A : b\r\n\r\n", "400")
add("name: tab before the colon", GET + b"X-A\t: b\r\n\r\n", "400")
add("name: several spaces before the colon", GET + b"X-A   : b\r\n\r\n", "400")
add("name: CR before the colon", GET + b"X-A\r: b\r\n\r\n", "400")
add("name: LF before the colon", GET + b"X-A\n: b\r\n\r\n", "400")
add("name: CRLF before the colon", GET + b"X-A\r\n: b\r\n\r\n", "400")
add("name: NUL before the colon", GET + b"X-A\0: b\r\n\r\n", "400")
add("name: vertical tab before the colon", GET + b"X-A\x0b: b\r\n\r\n", "400")
add("name: no-break space before the colon", GET + b"X-A\xa0: b\r\n\r\n", "400")
add("name: empty", GET + b": b\r\n\r\n", "400")
add("name: empty, no value", GET + b":\r\n\r\n", "400")
add("name: only a space", GET + b" : b\r\n\r\n", "400")
add("name: no colon", GET + b"X-A\r\n\r\n", "400")
add("name: no colon, a space inside", GET + b"X-A b\r\n\r\n", "400")
add("name: no colon, = for it", GET + b"X-A=b\r\n\r\n", "400")
add("name: a request line", GET + b"GET /smuggled HTTP/1.1\r\n\r\n", "400")
add("name: space before Content-Length's colon", POST + b"Content-Length : 35\r\n\r\n" + SMUGGLED, "400")
add("name: tab before Content-Length's colon", POST + b"Content-Length\t: 35\r\n\r\n" + SMUGGLED, "400")
add(
    "name: space before Transfer-Encoding's colon",
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "400",
)
add("name: space before Host's colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400")

add = table(CASES, "9110 5.6.2")
for byte in [*range(0x20), 0x7F, 0x80, 0xA0, 0xFF, *b' "(),/;<=>?@[\\]{}']:
    add(f"name: with byte {byte:#04x}", GET + b"X%cA: b\r\n\r\n" % byte, "400")
for byte in (0x00, 0x01, 0x09, 0x0B, 0x0C, 0x0D, 0x1B, 0x20, 0x7F, 0x85, 0xA0, 0xFF):
    add(f"name: starts with byte {byte:#04x}", GET + b"%cX-A: b\r\n\r\n" % byte, "400")
add("name: every token character", GET + b"!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n", "200", sees=ONE)
add("name: underscore", GET + b"X_A: b\r\n\r\n", "200", "400", sees=ONE)
add(
    "name: Content_Length is another field",
    POST + b"Content_Length: 35\r\n\r\n" + GET + END,
    "200 200",
    "400",
    "200",
    sees=(("POST", "/", b""), ("GET", "/", b"")),
)
add(
    "name: Transfer_Encoding is another field",
    POST + b"Transfer_Encoding: chunked\r\n\r\n" + GET + END,
    "200 200",
    "400",
    "200",
    sees=(("POST", "/", b""), ("GET", "/", b"")),
)
add("name: twice, once with an underscore", GET + b"X-Real-IP: 1\r\nX_Real_IP: 2\r\n\r\n", "200", "400", sees=ONE)
add("name: a digit", GET + b"1: b\r\n\r\n", "200", sees=ONE)
add("name: a pseudo-header of HTTP/2", GET + b":path: /smuggled\r\n\r\n", "400", rfc="9112 5")
add("name: :authority", GET + b":authority: b\r\n\r\n", "400", rfc="9112 5")

# --- values -----------------------------------------------------------------------------------------------------------

add = table(CASES, "9110 5.5")
for byte in [*range(9), *range(0x0A, 0x20), 0x7F]:
    add(f"value: with byte {byte:#04x}", GET + b"X-A: b%cc\r\n\r\n" % byte, "400")
for byte in (0x00, 0x0B, 0x0C, 0x0D, 0x7F):
    add(f"value: starts with byte {byte:#04x}", GET + b"X-A: %cb\r\n\r\n" % byte, "400")
    add(f"value: ends in byte {byte:#04x}", GET + b"X-A: b%c\r\n\r\n" % byte, "400")
add("value: empty", GET + b"X-A:\r\n\r\n", "200", sees=ONE)
add("value: only spaces", GET + b"X-A:    \r\n\r\n", "200", sees=ONE)
add("value: only tabs", GET + b"X-A:\t\t\r\n\r\n", "200", sees=ONE)
add("value: spaces and tabs around it", GET + b"X-A: \t b \t \r\n\r\n", "200", sees=ONE)
add("value: a tab inside", GET + b"X-A: b\tc\r\n\r\n", "200", sees=ONE)
add("value: no space before it", GET + b"X-A:b\r\n\r\n", "200", sees=ONE)
add("value: bytes beyond ASCII", GET + b"X-A: \x80\xc3\xa9\xff\r\n\r\n", "200", "400", sees=ONE)
add("value: colons", GET + b"X-A: :b:\r\n\r\n", "200", sees=ONE)
add("value: an encoded CRLF", GET + b"X-A: b%0d%0aX-B: c\r\n\r\n", "200", sees=ONE)
add(
    "value: UTF-8 that Latin-1 would take for CRLF",
    GET + "X-A: b\u560d\u560aX-B: c\r\n\r\n".encode(),
    "200",
    "400",
    sees=ONE,
)

add = table(CASES, "9112 2.2")
add("value: ends in LF", GET + b"X-A: b\n\r\n", "200", "400", sees=ONE)
add("value: LF and another field", GET + b"X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "200", sees=ONE)
add("value: ends in CR", GET + b"X-A: b\rX-B: c\r\n\r\n", "400")
add("value: ends in CR, then a length", POST + b"X-A: b\rContent-Length: 35\r\n\r\n" + SMUGGLED, "400")
add("value: ends in CR CR LF", GET + b"X-A: b\r\r\n\r\n", "400")
add("value: ends in LF LF", GET + b"X-A: b\n\n" + SMUGGLED, "400")
add("value: a request behind CR CR", GET + b"X-A: b\r\r" + SMUGGLED, "400")

# --- line folding -----------------------------------------------------------------------------------------------------

add = table(CASES, "9112 5.2")
add("fold: with a space", GET + b"X-A: b\r\n c\r\n\r\n", "400")
add("fold: with a tab", GET + b"X-A: b\r\n\tc\r\n\r\n", "400")
add("fold: of an empty value", GET + b"X-A:\r\n b\r\n\r\n", "400")
add("fold: an empty line of it", GET + b"X-A: b\r\n \r\n\r\n", "400")
add("fold: twice", GET + b"X-A: b\r\n c\r\n d\r\n\r\n", "400")
add("fold: after LF", GET + b"X-A: b\n c\r\n\r\n", "400")
add("fold: of the length", POST + b"Content-Length:\r\n 35\r\n\r\n" + SMUGGLED, "400")
add("fold: in the length", POST + b"Content-Length: 3\r\n 5\r\n\r\n" + SMUGGLED, "400")
add("fold: of the coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, "400")
add("fold: in the coding", POST + b"Transfer-Encoding: chun\r\n ked\r\n\r\n0\r\n\r\n", "400", "501")
add("fold: hides a coding", POST + b"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n" + SMUGGLED, "400")
add("fold: of Host", b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", "400")
add("fold: hides Host", b"GET / HTTP/1.1\r\nX-A: b\r\n Host: a\r\n\r\n", "400")
add("fold: of the request line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400", rfc="9112 2.2")
add("fold: of the request line, tab", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", "400", rfc="9112 2.2")
add(
    "fold: first line is a hidden coding",
    b"POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "400",
    rfc="9112 2.2",
)
add("fold: the line is only a space", GET + b" \r\n\r\n", "400", rfc="9112 2.2")
add("fold: the line is only a tab", b"GET / HTTP/1.1\r\n\t\r\nHost: a\r\n\r\n", "400", rfc="9112 2.2")
