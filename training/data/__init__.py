"""What is learned from: episodes on disk, datasets, clips, and goals and starts out of them."""
