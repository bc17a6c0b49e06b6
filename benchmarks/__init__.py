"""Speed and memory beside a reference, run side by side. Not part of the package."""
