"""A Supabase project as the place where anomalies and usage are also kept."""
