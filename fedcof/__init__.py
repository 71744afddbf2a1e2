"""Training-free federated learning: class means in, a closed-form classifier out."""
