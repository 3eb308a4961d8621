"""Where the data is: one module a store."""
