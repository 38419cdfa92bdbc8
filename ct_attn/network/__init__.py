"""3D U-Nets with and without attention gates, each with its config beside it."""
