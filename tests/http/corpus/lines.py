"""The request line: RFC 9112, section 3."""

from .case import END, GET, SMUGGLED, Case, table

CASES: list[Case] = []
REST = b"Host: a\r\n\r\n"

# --- the line as a whole ----------------------------------------------------------------------------------------------

add = table(CASES, "9112 3")
add("line: nonsense", b"nonsense\r\n\r\n", "400")
add("line: nonsense, then a good request", b"nonsense\r\n\r\n" + SMUGGLED, "400")
add("line: no target", b"GET HTTP/1.1\r\n" + REST, "400")
add("line: no version and no target", b"GET\r\n" + REST, "400", "400")
add("line: no version", b"GET / \r\n" + REST, "400", "505")
add("line: space at the end", b"GET / HTTP/1.1 \r\n" + REST, "400")
add("line: tab at the end", b"GET / HTTP/1.1\t\r\n" + REST, "400")
add("line: word at the end", b"GET / HTTP/1.1 x\r\n" + REST, "400")
add("line: space at the start", b" GET / HTTP/1.1\r\n" + REST, "400", "501")
add("line: tab at the start", b"\tGET / HTTP/1.1\r\n" + REST, "400", "501")
add("line: two spaces after the method", b"GET  / HTTP/1.1\r\n" + REST, "400")
add("line: two spaces before the version", b"GET /  HTTP/1.1\r\n" + REST, "400")
add("line: tab after the method", b"GET\t/ HTTP/1.1\r\n" + REST, "400", "501")
add("line: tab before the version", b"GET /\tHTTP/1.1\r\n" + REST, "400")
add("line: vertical tab for a space", b"GET\x0b/ HTTP/1.1\r\n" + REST, "400", "501")
add("line: form feed for a space", b"GET /\x0cHTTP/1.1\r\n" + REST, "400")
add("line: CR for a space", b"GET\r/ HTTP/1.1\r\n" + REST, "400", "501")
add("line: NUL after the method", b"GET\0 / HTTP/1.1\r\n" + REST, "400", "501")
add("line: quoted", b'"GET / HTTP/1.1"\r\n' + REST, "400", "501")
add("line: a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "400", "501", "505")
add("line: only the version", b"HTTP/1.1\r\n" + REST, "400", "501")
add("line: a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x7f" * 32 + b"\r\n\r\n", "400", "501")
add("line: an SSH greeting", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "400", "501")
add("line: a SMTP greeting", b"EHLO a\r\n\r\n", "400", "501")
add("line: zeros", b"\0" * 64, "400", "501")
add("line: high bytes", b"\xff\xfe\xfd\xfc\r\n\r\n", "400", "501")
add("line: a byte order mark", b"\xef\xbb\xbfGET / HTTP/1.1\r\n" + REST, "400", "501")
add("line: a PROXY header", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n" + REST, "400", "501")
add("line: a PROXY v2 header", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x7f" * 12 + GET + END, "400", "501")

# --- empty lines before it --------------------------------------------------------------------------------------------

add = table(CASES, "9112 2.2")
ONE = (("GET", "/", b""),)
add("before: an empty line", b"\r\n" + GET + END, "200", sees=ONE)
add("before: two empty lines", b"\r\n\r\n" + GET + END, "200", "400", sees=ONE)
add("before: LF", b"\n" + GET + END, "200", "400", sees=ONE)
add("before: CR", b"\r" + GET + END, "400")
add("before: CR CR LF", b"\r\r\n" + GET + END, "400")
add("before: LF CR", b"\n\r" + GET + END, "400")
add("before: a space and an empty line", b" \r\n" + GET + END, "400", "501")
add("before: an empty line after a body", GET + b"Content-Length: 1\r\n\r\nx\r\n" + GET + END, "200 200")
add("line: ends in LF", b"GET / HTTP/1.1\n" + REST, "200", "400", sees=ONE)
add("line: ends in CR", b"GET / HTTP/1.1\r" + REST, "400")
add("line: ends in CR CR LF", b"GET / HTTP/1.1\r\r\n" + REST, "400")
add("line: ends in LF CR", b"GET / HTTP/1.1\n\r" + REST, "400")
add("head: LF throughout", b"GET / HTTP/1.1\nHost: a\n\n", "200", "400", sees=ONE)
add("head: CR throughout", b"GET / HTTP/1.1\rHost: a\r\r" + SMUGGLED, "400")
add("head: LF LF at its end", b"GET / HTTP/1.1\r\nHost: a\n\n" + SMUGGLED, "400")
add("head: CR LF LF at its end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", "200", "400", sees=ONE)
add("head: LF CR LF at its end", b"GET / HTTP/1.1\r\nHost: a\n\r\n", "200", "400", sees=ONE)
add("head: CR CR at its end", b"GET / HTTP/1.1\r\nHost: a\r\r" + SMUGGLED, "400")
add("head: CR x at its end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", "400")

# --- the method -------------------------------------------------------------------------------------------------------

add = table(CASES, "9110 9.1")
add("method: lower case", b"get / HTTP/1.1\r\n" + REST, "400", "501", "200", sees=(("get", "/", b""),))
add("method: mixed case", b"Get / HTTP/1.1\r\n" + REST, "400", "501", "200", sees=(("Get", "/", b""),))
for method in ("FROBNICATE", "GE", "GETX", "CONNECTX", "PRIX", "FROB-2.!#$%&'*+^_`|~"):
    line = f"{method} / HTTP/1.1\r\n".encode()
    add(f"method: unknown, {method}", line + REST, "400", "501", "200", sees=((method, "/", b""),))
add(
    "method: unknown, with a length",
    b"FROBNICATE / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED + GET + END,
    "400",
    "501",
    "200 200",
    sees=(("FROBNICATE", "/", SMUGGLED), ("GET", "/", b"")),
)
add(
    "method: unknown, with chunks",
    b"FROBNICATE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET + END,
    "400",
    "501",
    "200 200",
    sees=(("FROBNICATE", "/", b"abc"), ("GET", "/", b"")),
)
add(
    "method: unknown, with a length and chunks",
    b"FROBNICATE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "400",
    "501",
)
add("method: unknown, two spaces after it", b"FROBNICATE  / HTTP/1.1\r\n" + REST, "400", "501")
add("method: unknown, no version", b"FROBNICATE /\r\n" + REST, "400", "501", "505")
add("method: unknown, another protocol", b"FROBNICATE / FTP/1.1\r\n" + REST, "400", "501")
add("method: unknown, an asterisk", b"FROBNICATE * HTTP/1.1\r\n" + REST, "400", "501", rfc="9112 3.2.4")
add("method: unknown, an authority", b"FROBNICATE a:443 HTTP/1.1\r\n" + REST, "400", "501", rfc="9112 3.2.3")
add("method: unknown, after an empty line", b"\r\nFROBNICATE / HTTP/1.1\r\n" + REST, "400", "501", "200")
add("method: empty", b" / HTTP/1.1\r\n" + REST, "400", "501")
add("method: 20,000 bytes", b"X" * 20_000 + b" / HTTP/1.1\r\n" + REST, "400", "501", "414", "431")
for byte in b'\0\x01\x08\x0b\x0e\x1b\x1f\x7f\x80\xff(),/:;<=>?@[\\]{}"':
    add(f"method: with byte {byte:#04x}", b"GE%cT / HTTP/1.1\r\n" % byte + REST, "400", "501")
add("method: HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", "501", "505", rfc="9113 3.4")
add(
    "method: HTTP/2 preface and frames",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + SMUGGLED,
    "400",
    "501",
    "505",
    rfc="9113 3.4",
)
add("method: PRI in HTTP/1.1", b"PRI * HTTP/1.1\r\n" + REST, "400", "501", "405", rfc="9113 3.4")
add("method: PRI with a path", b"PRI / HTTP/1.1\r\n" + REST, "400", "501", "405", rfc="9113 3.4")
add("method: RTSP's DESCRIBE", b"DESCRIBE / RTSP/1.0\r\n" + REST, "400", "501", "505")
add("method: RTSP's SETUP in HTTP", b"SETUP / HTTP/1.1\r\n" + REST, "400", "501", "200")
add("method: ICE's SOURCE", b"SOURCE / ICE/1.0\r\n" + REST, "400", "501", "505")
add(
    "method: TRACE with a body",
    b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "200",
    "400",
    "405",
    "501",
    rfc="9110 9.3.8",
)
add(
    "method: QUERY",
    b"QUERY /q HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "200",
    "400",
    "501",
    sees=(("QUERY", "/q", b"abc"),),
)
add("method: CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "400", "405", "501", rfc="9110 9.3.6")
add(
    "method: CONNECT, then bytes",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + SMUGGLED,
    "400",
    "405",
    "501",
    rfc="9110 9.3.6",
)
add(
    "method: CONNECT with a length",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "400",
    "405",
    "501",
    rfc="9110 9.3.6",
)
add("method: CONNECT to a path", b"CONNECT / HTTP/1.1\r\n" + REST, "400", "405", "501", rfc="9110 9.3.6")
add("method: CONNECT without a port", b"CONNECT a HTTP/1.1\r\n" + REST, "400", "405", "501", rfc="9110 9.3.6")

# --- the target -------------------------------------------------------------------------------------------------------


def path(target: bytes, seen: str, *answers: str, rfc: str = "9112 3.2.1", name: str | None = None) -> None:
    """A GET of `target` that is the raw path `seen` if it is answered."""
    table(CASES, rfc)(
        f"target: {name or target.decode('latin-1')}",
        b"GET " + target + b" HTTP/1.1\r\n" + REST,
        *(answers or ("200",)),
        sees=(("GET", seen, b""),),
    )


path(b"/%zz", "/%zz", "200", "400", rfc="3986 2.1")
path(b"/%", "/%", "200", "400", rfc="3986 2.1")
path(b"/%4", "/%4", "200", "400", rfc="3986 2.1")
path(b"/%00", "/%00", "200", "400", rfc="3986 2.1")
path(b"/%ff%fe", "/%ff%fe", "200", "400", rfc="3986 2.1")
path(b"/%c0%af", "/%c0%af", "200", "400", rfc="3986 2.1")
path(b"/%0d%0aX-A:b", "/%0d%0aX-A:b", "200", "400", rfc="3986 2.1")
path(b"/a%2fb", "/a%2fb", rfc="3986 2.2")
path(b"/..", "/..", "200", "400", rfc="3986 5.2.4")
path(b"/a/../b", "/a/../b", "200", "400", rfc="3986 5.2.4")
path(b"//a/b", "//a/b")
path(b"///", "///")
path(b"/;a=b", "/;a=b")
path(b"/a?b?c", "/a")
path(b"/a?%zz", "/a", "200", "400")
path(b"/a#smuggled", "/a", "200", "400")
path(b"/a?b#smuggled", "/a", "200", "400")
path(b"/a|b^c`d{e}", "/a|b^c`d{e}", "200", "400")
path(b"/a\\b", "/a\\b", "200", "400")
path(b'/"a"', '/"a"', "200", "400")
path(b"/<a>", "/<a>", "200", "400")
path(b"/http://b/x", "/http://b/x", name="an absolute form behind a slash")

add = table(CASES, "9112 3.2")
for byte in [*range(0x20), 0x7F]:
    add(f"target: with byte {byte:#04x}", b"GET /a%cb HTTP/1.1\r\n" % byte + REST, "400")
for byte in (0x80, 0xA0, 0xC3, 0xFF):
    add(f"target: with byte {byte:#04x}", b"GET /a%cb HTTP/1.1\r\n" % byte + REST, "400", "200")
add("target: a space inside", b"GET /a b HTTP/1.1\r\n" + REST, "400")
add(
    "target: a request inside",
    b"GET /a HTTP/1.1\r\nX:GET /b HTTP/1.1\r\n" + REST,
    "200",
    rfc="9112 5",
    sees=(("GET", "/a", b""),),
)
add("target: a version inside", b"GET /a HTTP/1.1 HTTP/1.1\r\n" + REST, "400")
add("target: a question mark alone", b"GET ? HTTP/1.1\r\n" + REST, "400")
add("target: a fragment alone", b"GET # HTTP/1.1\r\n" + REST, "400")
add("target: without a slash", b"GET a HTTP/1.1\r\n" + REST, "400")
add("target: a relative path", b"GET ../a HTTP/1.1\r\n" + REST, "400")
add("target: a percent sign first", b"GET %2Fa HTTP/1.1\r\n" + REST, "400")
add("target: a backslash first", b"GET \\a HTTP/1.1\r\n" + REST, "400")
add("target: @ first", b"GET @b/ HTTP/1.1\r\n" + REST, "400")
add("target: authority form", b"GET a:80 HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.3")
add("target: authority form with a path", b"GET a:80/x HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.3")
add("target: asterisk form", b"OPTIONS * HTTP/1.1\r\n" + REST, "200", rfc="9112 3.2.4", sees=(("OPTIONS", "*", b""),))
add("target: asterisk form of a GET", b"GET * HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.4")
add(
    "target: asterisk form of a POST",
    b"POST * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "400",
    rfc="9112 3.2.4",
)
add("target: asterisk and more", b"OPTIONS *x HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.4")
add("target: asterisk and a query", b"OPTIONS *?x HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.4")
add("target: asterisk and a path", b"OPTIONS */x HTTP/1.1\r\n" + REST, "400", rfc="9112 3.2.4")


def absolute(target: bytes, *answers: str, host: bytes = b"a", seen: str = "/x", sees: str | None = None) -> None:
    """A GET of `target`, whose raw path is `seen` and whose host is `sees` if it is answered."""
    name = f"target: {target.decode('latin-1')}" + (f", host {host.decode()}" if host != b"a" else "")
    table(CASES, "9112 3.2.2")(
        name,
        b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
        *answers,
        host=sees,
        sees=(("GET", seen, b""),),
    )


absolute(b"http://a/x", "200")
absolute(b"HTTP://A/x", "200")
absolute(b"http://a:80/x", "200", host=b"a:80")
absolute(b"https://a/x", "200", "400", "421")
absolute(b"http://a", "200", seen="/")
absolute(b"http://a?q", "200", seen="/")
absolute(b"http://a/x", "200", "400", host=b"b", sees="a")
absolute(b"http://a:80/x", "200", "400", host=b"a:81", sees="a:80")
absolute(b"http://a/x", "400", host=b"b c")
absolute(b"http://a/x", "400", host=b"b/smuggled")
absolute(b"http://[::1]/x", "200", "400", host=b"[::1]")
absolute(b"http://", "400")
absolute(b"http:///x", "400")
absolute(b"http:/x", "400")
absolute(b"http:x", "400")
absolute(b"http://?x", "400")
absolute(b"http://#x", "400")
absolute(b"http://:80/x", "400")
absolute(b"http://u@a/x", "400")
absolute(b"http://u:p@a/x", "400")
absolute(b"http://a:b/x", "400")
absolute(b"http://a:99999/x", "400")
absolute(b"http://a b/x", "400")
absolute(b"http://[::1/x", "400")
absolute(b"http://a\\b/x", "400")
absolute(b"ftp://a/x", "400")
absolute(b"file:///etc/passwd", "400")
absolute(b"javascript:alert(1)", "400")
absolute(b"://a/x", "400")
add = table(CASES, "9112 3.2.2")
add("target: absolute form without Host", b"GET http://a/x HTTP/1.1\r\n\r\n", "400")
add("target: absolute form with an empty Host", b"GET http://a/x HTTP/1.1\r\nHost:\r\n\r\n", "400")
add("target: absolute form in HTTP/1.0", b"GET http://a/x HTTP/1.0\r\n\r\n", "200", "400", sees=(("GET", "/x", b""),))

# --- the version ------------------------------------------------------------------------------------------------------

add = table(CASES, "9112 2.3")
for version in ("HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9", "HTTP/1.2", "HTTP/1.9", "HTTP/0.0"):
    add(f"version: {version}", b"GET / %s\r\n" % version.encode() + REST, "400", "505")
for version in (
    "HTTP/1",
    "HTTP/2",
    "HTTP/1.",
    "HTTP/.1",
    "HTTP/",
    "HTTP",
    "HTTP/1.10",
    "HTTP/1.01",
    "HTTP/01.1",
    "HTTP/11.1",
    "HTTP/1,1",
    "HTTP/1.1.1",
    "HTTP/1.x",
    "HTTP/x.1",
    "HTTP/-1.1",
    "HTTP/+1.1",
    "HTTP/1.-1",
    "HTTP /1.1",
    "HTTP/ 1.1",
    "HTTP/1. 1",
    "HTTP/1 .1",
    "HTTP\\1.1",
    "HTTPS/1.1",
    "HTP/1.1",
    "HTTTP/1.1",
    "http/1.1",
    "Http/1.1",
    "FTP/1.1",
    "RTSP/1.0",
    "ICE/1.0",
    "SIP/2.0",
    "HTTP/1.1\0",
    "HTTP/1.\u0661",
    "HTTP/1.1\x0b",
    "HTTP/2147483648.1",
    "HTTP/4294967297.1",
):
    add(f"version: {version!r}", b"GET / %s\r\n" % version.encode() + REST, "400", "505")
add("version: none, HTTP/0.9", b"GET /\r\n", "-", "400", "505", eof=True)
add("version: none, and an empty line", b"GET /\r\n\r\n", "400", "505")
add("version: none, and headers", b"GET /\r\nHost: a\r\n\r\n", "400", "505")
