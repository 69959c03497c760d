"""The steps of the pipeline: plain functions, configuration first, Arrow in, Arrow out."""
