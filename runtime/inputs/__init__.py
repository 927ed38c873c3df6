"""What programs read: parameters in one flat vector, their first values, random numbers, data."""
