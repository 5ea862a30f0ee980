"""Informers: every object of a resource held in this process, and handlers told of each change."""
