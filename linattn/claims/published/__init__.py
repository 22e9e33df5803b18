"""Published bounds, one file per paper, with weights p_i in place of 1/M."""
