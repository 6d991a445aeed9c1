-- For wrk. Arguments after "--": METHOD BODY_BYTES PIPELINE STYLE, where STYLE is plain, close or browser. Prints one
-- line "RESULT {json}" at the end.

local browser = {
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
    ["Accept-Encoding"] = "gzip, deflate, br, zstd",
    ["Referer"] = "http://127.0.0.1/catalogue?page=2",
    ["Connection"] = "keep-alive",
    ["Cookie"] = "session=5b1cf2d3f0b04f6ba6d0f3ab8d4a6a0e; theme=dark",
    ["Upgrade-Insecure-Requests"] = "1",
    ["Sec-Fetch-Dest"] = "document",
    ["Sec-Fetch-Mode"] = "navigate",
    ["Sec-Fetch-Site"] = "same-origin",
}

function init(args)
    local size = tonumber(args[2] or "0")
    local pipeline = tonumber(args[3] or "1")
    wrk.method = args[1] or "GET"
    if size > 0 then
        wrk.body = string.rep("x", size)
        wrk.headers["Content-Type"] = "application/octet-stream"
    end
    if args[4] == "browser" then
        for name, value in pairs(browser) do
            wrk.headers[name] = value
        end
    elseif args[4] == "close" then
        wrk.headers["Connection"] = "close"
    end
    if pipeline > 1 then
        local requests = string.rep(wrk.format(), pipeline)
        request = function() return requests end
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"messages": %d, "seconds": %.6f, "bytes": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
