"""Who acts, for the log."""

from app.store import Author, HistoryFilter

__all__ = ["Author", "HistoryFilter"]
