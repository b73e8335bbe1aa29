"""What a training will take of the device's memory, estimated while planning."""
