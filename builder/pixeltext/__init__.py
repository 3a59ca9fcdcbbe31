"""Text in pixels: views of a frame that make text readable, and engines that find it in them."""
