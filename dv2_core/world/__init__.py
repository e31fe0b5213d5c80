"""The mini-world: endless captioned clips of one sprite moving along exact boxes, made from redistributable art."""
