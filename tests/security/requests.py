"""Paths and addresses that an attacker would request."""

PATHS = (
    "/etc/passwd",
    "//etc/passwd",
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252f%252e%252e%252fetc%252fpasswd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "....//....//....//etc/passwd",
    "..%c0%af..%c0%afetc/passwd",
    "file:///etc/passwd",
    "file%3A%2F%2F%2Fetc%2Fpasswd",
    "~/.ssh/id_rsa",
    "/proc/self/environ",
    "0.webp%00/etc/passwd",
    "SECRETFILE",
    "CANARY",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:80/",
)

DOORS = (
    "gradio_api/file=",
    "gradio_api/file/",
    "file=",
    "gradio_api/proxy=",
    "proxy=",
    "static/",
    "assets/",
    "svelte/",
    "preview/",
    "gradio_api/custom_component/image/client/component/",
    "gradio_api/run-history/records/",
    "gradio_api/stream/",
)

CLOSED = (
    *("monitoring", "monitoring/summary", "gradio_api/dev/reload", "gradio_api/runs", "gradio_api/openapi.json"),
    *("gradio_api/vibe-code", "gradio_api/run-history/buckets", "gradio_api/deep_link", "gradio_api/mcp/sse", "docs"),
    *(f"local/{'x' * 32}/original/00000000/0", f"local/{'x' * 32}/archive/{'0' * 16}", "local/open"),
    *("openapi.json", ".env", ".git/config", "gradio_api/queue/../../etc/passwd", "gradio_api/profiling/traces"),
)

CLOSED_POSTS = (
    *("gradio_api/run/search_image", "gradio_api/api/search_image", "gradio_api/call/v2/search_image"),
    *("gradio_api/process_recording", "gradio_api/stream/x", "gradio_api/vibe-edit", "gradio_api/run-history/connect"),
    *("local/open", f"local/{'x' * 32}/plan", f"local/{'x' * 32}/run", f"local/{'x' * 32}/details"),
    *("gradio_api/call/lambda", "gradio_api/call/..%2fsearch_text", "api/predict", "run/predict"),
)
