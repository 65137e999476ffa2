"""Sources: what holds labelled images, each behind `featcache.core.sources.Source`."""
