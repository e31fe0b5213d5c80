"""DreamVideo-2's method without ComfyUI: model, diffusion, boxes, subject, training, evaluation."""
