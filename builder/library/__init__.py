"""Work with published datasets: find, inspect, compare and verify them, and record how they are used."""
