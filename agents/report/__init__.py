"""What a comparison of policies says: points, tables, pictures, films."""
