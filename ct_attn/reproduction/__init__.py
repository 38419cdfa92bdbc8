"""The experiments of Oktay et al. 2018, the cohorts they need, and the table they make."""
