"""Look at images that may show text in a browser, series by series, and decide what of them is blanked."""

from builder.library.textqueue.queue import TextQueue, open_queue
from builder.library.textqueue.site import QueueSite
from builder.library.view.server import Loopback

__all__ = ["TextQueue", "open_queue", "serve_queue"]


def serve_queue(queue: TextQueue, *, port: int = 0) -> Loopback:
    """Return a server for a queue, which listens and does not answer yet. Raises OSError if the port is taken."""
    return Loopback(QueueSite(queue), port=port)
