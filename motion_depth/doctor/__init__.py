"""The dataset doctor: whether scenes are whole, and whether their motion and depth mean what they should."""
