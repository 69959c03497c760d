"""Training data on its way to a trainer: in which order rows come, and where an epoch stands."""

from headrace.training.data import AsyncTrainingData, TrainingData

__all__ = ["AsyncTrainingData", "TrainingData"]
