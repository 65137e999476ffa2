"""The verbs: the only place that puts effects in order."""
