"""Sample data: a made-up shop with tastes in it, so that a recommender has something to learn."""

from headrace.sample.files import DEFAULT_END, Generated, Sample, generate

__all__ = ["DEFAULT_END", "Generated", "Sample", "generate"]
