"""Many pictures: a manifest becomes rows, and each row becomes one published folder, exactly once."""
