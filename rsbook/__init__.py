"""rsbook: learning from imperfect labels in remote sensing, as a book that runs."""

__version__ = "0.9.0"
