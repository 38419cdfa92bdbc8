"""From cases to weights: MONAI's dictionary transforms and Lightning's Trainer live here only."""
