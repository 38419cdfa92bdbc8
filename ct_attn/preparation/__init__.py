"""From one case as downloaded to scan, label, picture and record as trained on."""
