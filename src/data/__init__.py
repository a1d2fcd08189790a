"""Images: data sets and their splits, verification, augmentation in processes, batches, loaders."""
