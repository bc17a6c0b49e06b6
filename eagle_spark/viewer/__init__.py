"""Viewer for single images: the window `eagle-view` and the command `eagle predict`."""
