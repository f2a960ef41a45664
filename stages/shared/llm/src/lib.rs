//! Programs, LoRA, loss and optimizer.
