"""Tests of uvicorn's that bolide does not pass, and why: by name, with parameters where only some fail."""

_INSIDE = "looks inside uvicorn's own protocol object"
_NAME = "expects the server's name to be uvicorn"
_PIECES = "feeds one protocol object by turns of a loop of its own; the answers are all there at once on a socket"
_UPGRADE = (
    "a WebSocket handshake without version and key is refused with 426 (RFC 6455, 4.4), not served as a plain GET"
)
_CLOSE = (
    "an application that ends without closing ends the WebSocket in good order, with a close frame (RFC 6455, 7.1.7)"
)

REASONS: dict[str, str] = {
    "test_scopes": _INSIDE,
    "test_request_logging": "watches uvicorn's own loggers; tests/server has the access log",
    "test_large_post_request": _INSIDE,
    "test_frame_after_close_handshake_is_ignored": _INSIDE,
    "test_server_keepalive_ping_pong": _INSIDE,
    "test_server_keepalive_disabled": _INSIDE,
    "test_keepalive_timeout_with_pipelined_requests": _PIECES,
    "test_pipelined_requests": _PIECES,
    "test_default_default_headers": _NAME,
    "test_add_additional_header": _NAME,
    "test_default_server_headers": _NAME,
    "test_multiple_server_header": _NAME + "; and one of the user's own replaces the server's, it does not join it",
    "test_max_concurrency": "expects a 503 without a date",
    "test_httptools_http10_keep_alive_disabled": "HTTP/1.0 with Connection: keep-alive is kept alive (RFC 9112, 9.3)",
    "test_unsupported_ws_upgrade_request_warn_on_auto": _UPGRADE,
    "test_header_upgrade_is_websocket_depend_not_installed": "bolide needs no library for WebSocket",
    "test_asgi_return_value": _CLOSE,
    "test_close_transport_on_asgi_return": _CLOSE,
    "test_duplicate_handshake": _CLOSE,
    "test_send_close_on_server_shutdown": "a server that stops says 1001, going away; 1012 promises that it comes back",
}
