"""Trained potentials: predictors made of predictors, models on disk, predictions from other environments, errors."""
