"""Any subset of inputs → an assessment, its reasons, and a report of both."""
