"""The processes that train: launch, heartbeats, restarts."""
