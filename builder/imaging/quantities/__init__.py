"""What the numbers of an image measure: SUV, b-values, the scale of a maker's MR."""
