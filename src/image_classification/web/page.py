"""The page to draw on: one self-contained file."""

import base64
import hashlib
import re
from pathlib import Path

from image_classification.web.responses import Response

FILE = Path(__file__).with_name("page.html")


def load() -> Response:
    """The page, with a policy that lets the browser run only its own script and style."""
    html = FILE.read_text()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(html, 'script')}",
            f"style-src {_hash(html, 'style')}",
            "img-src blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    )
    return Response(200, html.encode(), b"text/html; charset=utf-8", headers)


def _hash(html: str, tag: str) -> str:
    """The policy's hash of the one element with this tag."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
