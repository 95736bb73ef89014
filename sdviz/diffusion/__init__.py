"""The diffusion core: schedule, guidance, samplers, per-image noise and training."""
