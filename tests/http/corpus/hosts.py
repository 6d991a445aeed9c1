"""The Host field: RFC 9112, section 3.2, and RFC 9110, section 7.2."""

from .case import Case, table

CASES: list[Case] = []
ONE = (("GET", "/", b""),)
LINE = b"GET / HTTP/1.1\r\n"

add = table(CASES, "9112 3.2")
add("host: missing", LINE + b"\r\n", "400")
add("host: missing, other fields", LINE + b"X-A: b\r\nAccept: */*\r\n\r\n", "400")
add("host: missing in a POST", b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "400")
add("host: missing in the second request", LINE + b"Host: a\r\n\r\n" + LINE + b"\r\n", "200 400")
add("host: empty", LINE + b"Host:\r\n\r\n", "400")
add("host: only a space", LINE + b"Host: \r\n\r\n", "400")
add("host: only a tab", LINE + b"Host:\t\r\n\r\n", "400")
add("host: twice the same", LINE + b"Host: a\r\nHost: a\r\n\r\n", "400")
add("host: two that differ", LINE + b"Host: a\r\nHost: b\r\n\r\n", "400")
add("host: twice, once empty", LINE + b"Host: a\r\nHost:\r\n\r\n", "400")
add("host: twice, first empty", LINE + b"Host:\r\nHost: a\r\n\r\n", "400")
add("host: twice, cases differ", LINE + b"Host: a\r\nhOST: a\r\n\r\n", "400")
add("host: twice, far apart", LINE + b"Host: a\r\n" + b"X-A: b\r\n" * 40 + b"Host: b\r\n\r\n", "400")
add("host: three times", LINE + b"Host: a\r\nHost: a\r\nHost: a\r\n\r\n", "400")
add("host: twice in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400")
add("host: missing in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", "200", sees=ONE)
add("host: bad in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", "400")
add("host: only X-Forwarded-Host", LINE + b"X-Forwarded-Host: a\r\n\r\n", "400")

add = table(CASES, "9110 7.2")
for value in (
    "a",
    "A",
    "a.b",
    "a.b.",
    "a-b",
    "a_b",
    "a:80",
    "a:8000",
    "127.0.0.1",
    "127.0.0.1:80",
    "[::1]",
    "[::1]:80",
    "[2001:db8::1]",
    "[::ffff:1.2.3.4]",
    "xn--bcher-kva.example",
    "localhost",
):
    add(f"host: {value}", LINE + b"Host: %s\r\n\r\n" % value.encode(), "200", sees=ONE)
for value in ("a:", "%61", "a%2eb", "~a!$&'()*+;=", "[v1.a:b]"):
    add(f"host: {value}", LINE + b"Host: %s\r\n\r\n" % value.encode(), "200", "400", sees=ONE)
for value in (
    "a b",
    "a\tb",
    "a,b",
    "a, b",
    "a/b",
    "a/",
    "/a",
    "http://a",
    "//a",
    "a?b",
    "a#b",
    "a\\b",
    "u@a",
    "u:p@a",
    "@a",
    "a@",
    "a:b",
    "a:80:80",
    "a:-1",
    "a:+80",
    "a:80x",
    "a: 80",
    "a:65536",
    "a:99999999999999999999",
    ":80",
    ":",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[]:80",
    "[::1]80",
    "[::1]:x",
    "[::g]",
    "[::1%25eth0]:x",
    "a[::1]",
    "[[::1]]",
    "a<b",
    "a>b",
    'a"b',
    "a`b",
    "a{b}",
    "a|b",
    "a^b",
    "%",
    "%4",
    "%zz",
    "a%",
    "a%00b%",
    "[1.2.3]",
    "[:::1]",
):
    add(f"host: {value}", LINE + b"Host: %s\r\n\r\n" % value.encode(), "400")
for byte in (0x00, 0x01, 0x0B, 0x0C, 0x1F, 0x7F):
    add(f"host: with byte {byte:#04x}", LINE + b"Host: a%cb\r\n\r\n" % byte, "400")
add("host: a NUL at the end", LINE + b"Host: a\0\r\n\r\n", "400")
for byte in (0x80, 0xC3, 0xFF):
    add(f"host: with byte {byte:#04x}", LINE + b"Host: a%cb\r\n\r\n" % byte, "400")
