"""Sample data of a fictional shop, with user preferences that a recommender can learn."""

from headrace.sample.files import DEFAULT_END, Generated, Sample, generate

__all__ = ["DEFAULT_END", "Generated", "Sample", "generate"]
