"""The network, its losses and metrics, the bundle it is kept in, and the engines that run it."""
