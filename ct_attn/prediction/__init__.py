"""What surrounds the network when scans are predicted: requests, outputs, records, many cases at a time."""
