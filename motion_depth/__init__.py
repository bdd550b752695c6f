"""Motion and depth heads on WAN2.2-TI2V: the parts, one job each."""
