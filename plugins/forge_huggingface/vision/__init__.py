"""Pictures: finding and opening them, and rows with pictures as tokens and pixels."""
