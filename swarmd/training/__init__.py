"""The trainer: samples completions, learns from scored ones, and knows neither network nor tasks."""
