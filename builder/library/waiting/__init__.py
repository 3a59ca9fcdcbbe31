"""Look in a browser at what waits for a person: images that may show text, and heads that may show a face."""

from builder.library.view.server import Loopback
from builder.library.waiting.heads import HeadQueue, open_heads
from builder.library.waiting.site import QueueSite
from builder.library.waiting.texts import TextQueue, open_queue

__all__ = ["HeadQueue", "TextQueue", "open_heads", "open_queue", "serve_queue"]


def serve_queue(queue: TextQueue | None, heads: HeadQueue | None = None, *, port: int = 0) -> Loopback:
    """Return a server for what waits, which listens and does not answer yet. Raises OSError if the port is taken."""
    return Loopback(QueueSite(queue, heads), port=port)
