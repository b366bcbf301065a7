"""What tasks share: the record's schema, its reader and writer, the manifest, the ledger, and provenance."""
