"""Pictures of images and their lesions for HTML pages: planes, outlines, colors."""
