"""From rows to tokens and labels: templates, and which tokens are in the loss."""
