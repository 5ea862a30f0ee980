"""Holding one partition: compressed bodies, indexes, bounded history, snapshots at a version. All pure."""
