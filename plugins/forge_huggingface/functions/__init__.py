"""Functions of the user's, for rewards and metrics: naming, checking, finding and blaming them."""
