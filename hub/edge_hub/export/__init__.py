"""What a hub keeps, as files for other programs: CSV and Parquet."""
