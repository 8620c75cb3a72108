"""The field's files ↔ the parts of a `Sample`, one module a modality."""
