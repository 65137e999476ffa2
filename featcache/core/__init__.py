"""Pure decisions and plain data: standard library and numpy only."""
