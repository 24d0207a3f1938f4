"""The simulator: clusters of real engines on a simulated network, in virtual time, from a seed."""
