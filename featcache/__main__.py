"""``python -m featcache`` is the ``featcache`` command."""

from featcache.cli.main import run

if __name__ == "__main__":
    run()
