"""One rank's feed and loop, and the launcher that starts the ranks."""
