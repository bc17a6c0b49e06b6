"""One image in people's hands: the window `eagle-view`, and `eagle-predict` on the command line."""
