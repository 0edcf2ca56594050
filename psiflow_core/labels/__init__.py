"""Labels: their format and store, data of others, import and export."""
