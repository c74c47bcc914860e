"""What use teaches: feedback on answers, and whether what comes in still looks like validation."""
