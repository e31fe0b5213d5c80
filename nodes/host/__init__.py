"""The only code that touches ComfyUI's internals: loading, patching, control, sampling."""
