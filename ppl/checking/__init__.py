"""Whether a sampler is right: `check_sampler`."""
