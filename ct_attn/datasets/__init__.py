"""Where cases come from: one module or package per source that becomes a manifest."""
