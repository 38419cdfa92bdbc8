"""What computes a network: one small interface, one module for each library."""
