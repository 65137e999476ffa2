"""Arrays or modules in, weights and history out; no paths."""
