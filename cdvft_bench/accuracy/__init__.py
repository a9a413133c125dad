"""Tasks, models and published figures: what a method reaches, beside what it costs."""
