"""What conversations, runs and criteria are and mean; knows no store."""
