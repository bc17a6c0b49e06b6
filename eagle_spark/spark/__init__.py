"""What is about Spark and not about chests."""
