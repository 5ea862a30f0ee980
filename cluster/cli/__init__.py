"""The command line. The only reader of the environment and of argv."""
