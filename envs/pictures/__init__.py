"""What is seen: cameras, textures and the renderer."""
