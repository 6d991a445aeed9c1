"""Tests of Starlette's and FastAPI's that are not run over HTTP, or do not pass there, and why."""

_TRAILERS = "httpx drops trailers; tests/asgi reads them from the socket"
_HOST = "sends a Host that is none; the server refuses it before the application can (RFC 9112, 3.2)"
_VALUE = "sends a field value that no HTTP client sends"
_DEBUG = "needs http.response.debug, which hands Python objects to a client in the same process"
_BROKEN = "a response that breaks off is an error to an HTTP client"
_CLIENT = "about the client in the process itself"

NOT_RUN: dict[str, dict[str, str]] = {
    "starlette": {
        "tests/test_testclient.py": _CLIENT,
        "tests/test_websockets.py": "its WebSocket sessions are in the process; tests/ws has bolide's",
    },
    "fastapi": {
        "tests/benchmarks": "measures",
        "tests/memory_benchmarks": "measures",
        "tests/test_fastapi_cli.py": "about FastAPI's command",
        "tests/test_telemetry/test_environment_integrations.py": "in processes of their own, with FastAPI's client",
    },
}

REASONS: dict[str, dict[str, str]] = {
    "starlette": {
        "test_received_bytes_are_counted_with_unreliable_content_length": "the client sends no more than it announces",
        "test_gzip_trailers": _TRAILERS,
        "test_gzip_excluded_content_type_trailers": _TRAILERS,
        "test_https_redirect_middleware": _HOST,
        "test_https_redirect_middleware_without_server": _HOST,
        "test_trusted_host_middleware_ipv6": _HOST,
        "test_host_routing_rejects_invalid_hosts": _HOST,
        "test_host_routing_ignores_port": _HOST,
        "test_websocket_state": "a WebSocket session in the process, with a lifespan in the server",
        "test_force_500_response": "expects no body in the server's own 500",
        "test_request_headers": "compares the order of the fields, which is that of the HTTP client",
        "test_cookies_invalid": _VALUE,
        "test_staticfiles_304_with_if_none_match_wildcard": _VALUE,
        "test_request_send_push_promise": "http.response.push is for HTTP/2",
        "test_response_phrase": "its status is that of an interim response: the client waits for another",
        "test_staticfiles_with_invalid_dir_permissions_returns_401": "root may read any folder",
        "test_templates": _DEBUG,
        "test_calls_context_processors": _DEBUG,
        "test_template_with_middleware": _DEBUG,
        "test_templates_with_directories": _DEBUG,
        "test_templates_with_environment": _DEBUG,
    },
    "fastapi": {
        "test_security_http_base_with_whitespaces": _VALUE,
        "test_token_with_whitespaces": _VALUE,
        "test_broken_session_stream_no_raise": _BROKEN,
        "test_errors_after_response_started_are_logged[stream]": _BROKEN,
        "test_known_http_methods[CONNECT]": "the server is no proxy: CONNECT gets 501",
        **{
            f"test_request_authority_is_only_on_spans[{name}]": _HOST
            for name in (
                "http-public.example:invalid-expected5",
                "http-[invalid-expected6",
                "http-public.example:99999-expected7",
                "http-user:password@public.example-expected8",
                "http-public.example/path-expected9",
                "http--expected10",
            )
        },
    },
}
