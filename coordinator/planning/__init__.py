"""The pure planner: loads in; shards, cuts and places wanted out, each with reasons."""
