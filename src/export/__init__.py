"""Files to deploy, each verified against the network that it was made from."""
