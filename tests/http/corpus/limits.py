"""What is too large: RFC 9110, sections 5.4 and 15.5, RFC 6585, section 5. The limits are the server's defaults."""

from .case import END, GET, POST, SMUGGLED, Case, table

CASES: list[Case] = []
TOO_LONG, TOO_MUCH = ("414", "400", "431"), ("431", "400")

add = table(CASES, "9110 15.5.15")
add(
    "large: a target of 8,000 bytes",
    b"GET /" + b"a" * 7_999 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "200",
    rfc="9112 3",
    sees=(("GET", "/" + "a" * 7_999, b""),),
)
add("large: a target of 300,000 bytes", b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", *TOO_LONG)
add("large: a query of 300,000 bytes", b"GET /?" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", *TOO_LONG)
add("large: a target of a megabyte that does not end", b"GET /" + b"a" * 1_000_000, *TOO_LONG)
add(
    "large: an absolute target of 300,000 bytes",
    b"GET http://" + b"a" * 300_000 + b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    *TOO_LONG,
)
add("large: a method of 300,000 bytes", b"G" * 300_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", "400", "501", "414", "431")
add(
    "large: a version of 300,000 bytes",
    b"GET / HTTP/1.1" + b"1" * 300_000 + b"\r\nHost: a\r\n\r\n",
    "400",
    "414",
    "431",
    "505",
)
add("large: 300,000 bytes of spaces", b" " * 300_000, "400", "414", "431", "501")
add("large: 300,000 bytes without a space", b"A" * 300_000, "400", "414", "431", "501")
add(
    "large: empty lines before the request line, a megabyte",
    b"\r\n" * 500_000 + GET + END,
    "400",
    "431",
    "414",
    rfc="9112 2.2",
)

add = table(CASES, "6585 5")
add("large: a value of 300,000 bytes", GET + b"X-A: " + b"b" * 300_000 + b"\r\n\r\n", *TOO_MUCH)
add("large: a value of a megabyte that does not end", GET + b"X-A: " + b"b" * 1_000_000, *TOO_MUCH)
add("large: a name of 300,000 bytes", GET + b"X" * 300_000 + b": b\r\n\r\n", *TOO_MUCH)
add("large: a name of a megabyte that does not end", GET + b"X" * 1_000_000, *TOO_MUCH)
add("large: spaces before a value, 300,000 bytes", GET + b"X-A:" + b" " * 300_000 + b"b\r\n\r\n", *TOO_MUCH)
add("large: spaces after a value, 300,000 bytes", GET + b"X-A: b" + b" " * 300_000 + b"\r\n\r\n", *TOO_MUCH)
add("large: 10,000 fields", GET + b"X-A: b\r\n" * 10_000 + END, *TOO_MUCH)
add("large: 100,000 fields", GET + b"a:\r\n" * 100_000 + END, *TOO_MUCH)
add("large: fields that do not end", GET + b"X-A: b\r\n" * 100_000, *TOO_MUCH)
add("large: a Host of 300,000 bytes", b"GET / HTTP/1.1\r\nHost: " + b"a" * 300_000 + b"\r\n\r\n", *TOO_MUCH)
add("large: a cookie of 300,000 bytes", GET + b"Cookie: " + b"b" * 300_000 + b"\r\n\r\n", *TOO_MUCH)
add("large: a length of 300,000 digits", POST + b"Content-Length: " + b"0" * 300_000 + b"5\r\n\r\nhello", *TOO_MUCH)
add("large: a coding of 300,000 bytes", POST + b"Transfer-Encoding: " + b"a" * 300_000 + b"\r\n\r\n", *TOO_MUCH, "501")
add(
    "large: a fine request, then one that is too large",
    GET + END + GET + b"X-A: " + b"b" * 300_000 + b"\r\n\r\n" + SMUGGLED,
    "200 431",
    "200 400",
)
add("large: 100 fields", GET + b"".join(b"X-%d: b\r\n" % n for n in range(99)) + END, "200", sees=(("GET", "/", b""),))
