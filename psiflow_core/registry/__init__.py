"""Discovery of plugins and look-up of components by name."""
