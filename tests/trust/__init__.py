"""Proofs that a cache is right or says that it is not: kills, faults, full disks."""
