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
_FOLDERS = "the folders are worked out by the reloader, not by the configuration: tests/server/test_reload.py"
_WORDING = "expects other words; tests/server has ours"
_BIND = "expects that the socket is bound by Config.bind_socket(); here the supervisor binds several"
_PROCESS = "about uvicorn's object for a worker, and how it is asked whether it lives; tests/server/test_supervisor.py"
_RELOADER = "about uvicorn's base class of reloaders; tests/server/test_reload.py"
_WATCH = "looks at the arguments that watchfiles gets; tests/server/test_reload.py looks at what is watched"
_EXIT = "ends with 3 where there is no application or no address; here that is 1: docs/migrating.md"
_OPEN = "expects that the file is opened without naming its encoding"
_OTHERS = "about one of uvicorn's several implementations; bolide has one of its own, and says so in the log"
_QUIET = "expects log lines for connections; here those are of the C code, which logs no more than requests and faults"
_WHOLE = "an application that fails after a complete response does not cost the connection"

REASONS: dict[str, str] = {
    "test_scopes": _INSIDE,
    "test_request_logging": "watches uvicorn's own loggers; tests/server has the access log",
    "test_large_post_request": _INSIDE,
    "test_frame_after_close_handshake_is_ignored": _INSIDE,
    "test_server_keepalive_ping_pong": _INSIDE,
    "test_server_keepalive_disabled": _INSIDE,
    "test_keepalive_timeout_with_pipelined_requests": _PIECES,
    "test_pipelined_requests": _PIECES,
    "test_message_after_body_complete": _WHOLE,
    "test_value_returned": _WHOLE,
    "test_log_config_file[log_config.ini]": "names a file that does not exist, behind a fileConfig() that does nothing",
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
    "test_should_warn_on_invalid_reload_configuration": _WORDING,
    "test_reload_dir_is_set": _FOLDERS,
    "test_non_existant_reload_dir_is_not_set": _FOLDERS,
    "test_reload_subdir_removal": _FOLDERS,
    "test_reload_dir_subdirectories_are_removed": _FOLDERS,
    "test_reload_excluded_subdirectories_are_removed": _FOLDERS,
    "test_reload_includes_exclude_dir_patterns_are_matched": _FOLDERS,
    "test_proxy_headers": "looks for the middleware; here the server applies the proxies' fields when there are any",
    "test_app_unimportable_module": "expects a traceback; here it is one line in the log and exit code 1",
    "test_run_exits_with_startup_failure_on_unloadable_app": _EXIT,
    "test_run_fails_fast_in_parent_on_bad_app_path": _EXIT,
    "test_exit_on_create_server_with_invalid_host": _EXIT,
    "test_concrete_http_class": _OTHERS,
    "test_http2_requires_zttp_protocol": _OTHERS,
    "test_ws_websockets_emits_deprecation_warning": _OTHERS,
    "test_get_loop_factory[none-None]": "none is the loop of the caller; a bolide server needs bolide's",
    "test_log_config_default": "expects that the caller's dict is changed in place; bolide changes a copy",
    "test_log_config_json": _OPEN,
    "test_log_config_yaml": _OPEN,
    "test_log_config_pathlike": _OPEN,
    "test_log_config_yaml_missing_pyyaml": _WORDING,
    "test_env_file": "expects that 0 workers are one; here they are an error",
    "test_warn_when_using_reload_and_workers": _WORDING,
    "test_custom_loop__not_importable_custom_loop_setup_function": _WORDING,
    "test_setup_event_loop_is_removed": "about a method that uvicorn once had",
    "test_trace_logging_on_http_protocol": _QUIET,
    "test_trace_logging_on_ws_protocol": _QUIET,
    "test_default_ssl_context_factory_requires_ssl_certfile": _WORDING,
    "test_ssl_context_factory_must_return_ssl_context": _WORDING,
    "test_run_invalid_app_config_combination": _WORDING + ", as an error, since the server does not start",
    "test_run_match_config_params": "serve() has its options as a TypedDict, which names no defaults",
    "test_cli_print_version": _NAME,
    "test_cli_call_change_reload_run": _BIND,
    "test_cli_call_multiprocess_run": _BIND,
    "test_cli_uds": _BIND + "; and only a socket that nobody listens on is replaced, no other file",
    "test_cli_incomplete_app_parameter": _WORDING,
    "test_process_ping_pong": _PROCESS,
    "test_process_ping_pong_timeout": _PROCESS,
    "test_process_ping_broken_pipe": _PROCESS,
    "test_process_ready": _PROCESS,
    "test_multiprocess_restart_aborts_when_replacement_not_ready": _PROCESS,
    "test_wait_until_ready_bails_on_shutdown_or_dead_worker": _PROCESS,
    "test_multiprocess_restart_stops_when_shutting_down": _PROCESS,
    "test_reload_when_pattern_matched_file_is_changed[StatReload-False]": "the patterns hold for polling too",
    "test_should_watch_cwd": _WATCH,
    "test_should_watch_multiple_dirs": _WATCH,
    "test_base_reloader_run": _RELOADER,
    "test_base_reloader_should_exit": _RELOADER,
    "test_base_reloader_closes_sockets_on_shutdown": _RELOADER,
    "test_invalid_format": _WORDING,
}
