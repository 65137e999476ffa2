"""``python -m featcache`` is the ``featcache`` command."""

from featcache.cli.main import main

if __name__ == "__main__":
    main()
