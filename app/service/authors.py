"""What `web` and `cli` need of the log's vocabulary, so that they need not import `store`."""

from app.store import Author, HashedRow, HistoryFilter

__all__ = ["Author", "HashedRow", "HistoryFilter"]
