"""The machine: device, MindSpore's releases, processes, signals, environment. Importing it imports no MindSpore."""
