"""The content of `summary.json`: typed records, the schema that is generated from them, and how they are filled."""
