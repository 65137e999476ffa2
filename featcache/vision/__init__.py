"""Images: folders, decoding, views, backbones and the passes over them."""
