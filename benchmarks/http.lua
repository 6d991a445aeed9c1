-- For wrk. Arguments after "--": METHOD BODY_BYTES. Prints one line "RESULT {json}" at the end.

function init(args)
    local size = tonumber(args[2] or "0")
    wrk.method = args[1] or "GET"
    if size > 0 then
        wrk.body = string.rep("x", size)
        wrk.headers["Content-Type"] = "application/octet-stream"
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"messages": %d, "seconds": %.6f, "bytes": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
