"""Images: data sets and their splits, verification, transforms, loaders."""
