"""What pairscore's services run on: here on this machine, or elsewhere."""
